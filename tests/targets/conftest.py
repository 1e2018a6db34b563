"""Small models of transformers and open_clip, written to folders as a person would have them: nothing is downloaded."""

from __future__ import annotations

import json

import pytest
import torch

WORDS = ["<pad>", "<end>", "<unk>", "a", "photo", "of", "cat", "dog", "red", "disc", "square"]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="<end>", padding_side="right"
    )


def towers():
    sides = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sides, "vocab_size": len(WORDS), "max_position_embeddings": 8, "eos_token_id": 1}
    return text, {**sides, "image_size": 32, "patch_size": 8}


@pytest.fixture(scope="session", params=["clip", "siglip"])
def text_image_folder(request, tmp_path_factory):
    """A CLIP or SigLIP with its image processor and tokenizer, saved."""
    import transformers

    text, vision = towers()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "clip":
            config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
            model = transformers.CLIPModel(config)
        else:
            config = transformers.SiglipConfig(text_config={**text, "pad_token_id": 0}, vision_config=vision)
            model = transformers.SiglipModel(config)
        for name, parameter in model.named_parameters():  # their own are so small that all prompts are alike
            torch.nn.init.normal_(parameter, std=0.5 if name.startswith("text_model") else 0.2)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, do_convert_rgb=True
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def open_clip_names(tmp_path_factory):
    """The names of two small architectures, entered as open_clip's users enter theirs: a ResNet and a ViT."""
    import open_clip

    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    visions = {
        "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "tiny-vit": {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8},
    }
    folder = tmp_path_factory.mktemp("open_clip")
    for name, vision in visions.items():
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return tuple(visions)
