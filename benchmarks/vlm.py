"""The memory and time that explaining the words of an answer takes, beside those of a plain forward, on the CPU.

A LLaVA of some 300 million parameters with random weights: a CLIP tower for 336 x 336 pixels in 576 patches, and a
Llama. The answer has four tokens, given, so that nothing is generated. Each way runs in a process of its own: the peak
is the process's largest resident memory. What a model's own weights take is in both.

    python benchmarks/vlm.py                    # prints the table
    python benchmarks/vlm.py --layers 4         # a smaller one
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from machine import hardware, load

IMAGE, WORDS, ANSWER = 31999, 32000, [101, 102, 103, 104]
WAYS = ("forward", "tam", "grad_cam", "hires_cam", "attention_relevance")


def model(layers: int) -> Any:
    """The model."""
    import transformers

    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=336,
            patch_size=14,
        ),
        text_config=transformers.LlamaConfig(
            hidden_size=1024, intermediate_size=2816, num_hidden_layers=layers, num_attention_heads=16,
            num_key_value_heads=4, vocab_size=WORDS,
        ),
        image_token_index=IMAGE,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlavaForConditionalGeneration(config).eval()


def call() -> dict[str, torch.Tensor]:
    """A prompt of 30 tokens about one picture."""
    ids = torch.tensor([[1, *[IMAGE] * 576, *range(200, 230)]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.rand(1, 3, 336, 336, generator=torch.Generator().manual_seed(0)) * 2 - 1,
    }


def once(way: str, layers: int) -> None:
    """Run one way in this process, twice, and print what it took."""
    import seewhy

    made, inputs = model(layers), call()
    ids = torch.cat([inputs["input_ids"], torch.tensor([ANSWER])], 1)
    whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    parameters = sum(parameter.numel() for parameter in made.parameters())
    seconds = 0.0
    for _ in range(2):  # the second time what is worked out once is known
        start = time.perf_counter()
        if way == "forward":
            with torch.inference_mode():
                made(**whole)
        else:
            seewhy.explain(made, inputs, seewhy.Token(0, of=ANSWER), method=way)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
    print(parameters, peak, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--way", choices=WAYS)
    asked = parser.parse_args()
    if asked.way:
        once(asked.way, asked.layers)
        return
    rows = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--layers", str(asked.layers)]
        rows[way] = tuple(
            map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        )
    parameters, least, plain = rows["forward"]
    print(f"{parameters / 1e6:.0f} million parameters; {hardware()}, torch {torch.__version__}; {load()}\n")
    print("| | peak memory, MiB | of the forward | seconds | of the forward |\n|---|---|---|---|---|")
    for way, (_, peak, seconds) in rows.items():
        print(f"| {way} | {peak:.0f} | {peak / least:.2f} | {seconds:.2f} | {seconds / plain:.2f} |")


if __name__ == "__main__":
    main()
