"""Train a small LLaVA to say what lies where in a scene, and save it: tests/language/data/scenes.pt.

python -m tests.language.train               # some minutes on one core; prints loss and accuracy
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from tests.language.scenes import ANSWER, ID, PATCHES, SIDE, WORDS, batch

SAVED = Path(__file__).parent / "data" / "scenes.pt"


def small_llava() -> nn.Module:
    """A LLaVA of some 200,000 parameters, for pictures of 48 x 48 pixels in 8 x 8 patches.

    What it takes of its tower is the convolution before the attention: a token knows what lies in its place.
    """
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    text = {**tower, "num_hidden_layers": 4, "num_key_value_heads": 4, "max_position_embeddings": 128}
    text["initializer_range"] = 0.125  # of 64 numbers: with the 0.02 of large models attention hardly begins
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **tower, image_size=SIDE, patch_size=SIDE // PATCHES, initializer_range=0.1
        ),
        text_config=transformers.LlamaConfig(
            **text, vocab_size=len(WORDS), pad_token_id=ID["<pad>"], bos_token_id=ID["<s>"], eos_token_id=ID["</s>"]
        ),
        image_token_index=ID["<image>"],
        vision_feature_layer=[0],
        image_seq_length=PATCHES**2,
        tie_word_embeddings=True,
    )
    return transformers.LlavaForConditionalGeneration(config)


def loss_of(model: nn.Module, inputs: dict[str, Tensor], answers: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of the answers, and the share of their tokens that would be said, but for which comes first."""
    ids = torch.cat([inputs["input_ids"], answers], 1)
    logits = model(
        input_ids=ids, pixel_values=inputs["pixel_values"], use_cache=False, logits_to_keep=answers.shape[1] + 1
    ).logits[:, :-1]
    right = (logits.argmax(-1) == answers)[:, [2, 3, 6, 7]].float().mean()  # what the words before decide
    return F.cross_entropy(logits.flatten(0, 1), answers.flatten()), right


def train(steps: int, size: int, rate: float) -> nn.Module:
    torch.manual_seed(0)
    model = small_llava()
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    start = time.perf_counter()
    model.train()
    for step in range(steps):
        inputs, answers, _ = batch(size, 1000 + step)
        loss, right = loss_of(model, inputs, answers)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(
                f"{step + 1} steps, {time.perf_counter() - start:.0f} s: loss {loss:.3f}, right {right:.3f}", flush=True
            )
    return model.eval()


def saved() -> nn.Module:
    """The model as it was trained."""
    model = small_llava()
    model.load_state_dict({name: value.float() for name, value in torch.load(SAVED, weights_only=True).items()})
    return model.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    asked = parser.parse_args()
    model = train(asked.steps, asked.size, asked.rate)
    with torch.no_grad():
        inputs, answers, _ = batch(500, 7)
        loss, right = loss_of(model, inputs, answers)
    print(f"of 500 new scenes: loss {loss:.3f}, right {right:.4f} of {ANSWER} words each")
    SAVED.parent.mkdir(exist_ok=True)
    torch.save({name: value.half() for name, value in model.state_dict().items()}, SAVED)
    print(f"{SAVED.name}: {SAVED.stat().st_size / 1e6:.2f} MB")
