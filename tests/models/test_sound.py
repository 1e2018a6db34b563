"""Models of sound in transformers: AST sees time and frequency, Whisper and Wav2Vec2 moments."""

from __future__ import annotations

import pytest
import torch
import transformers

import seewhy

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3}


def test_the_spectrogram_of_ast_is_the_right_way_round() -> None:
    """The model turns its input: the grid's rows are frequencies, those of the input moments."""
    torch.manual_seed(0)
    config = transformers.ASTConfig(**SMALL, max_length=96, num_mel_bins=48)
    model = transformers.ASTForAudioClassification(config).eval()
    found = seewhy.explain(model, torch.randn(2, 96, 48), method="layer_cam")
    ((place),) = found.placements.values()
    assert [(side.axis, side.flipped) for side in place.sides] == [(1, False), (0, False)]
    (grid,) = found.maps.values()
    assert grid.shape == (2, 4, 9)
    assert (found.axes, found.heatmap.shape) == (("time", "frequency"), (2, 96, 48))
    hottest = grid[0].flatten().argmax().item()
    frequency, time = (hottest // 9 + 0.5) * 48 / 4, (hottest % 9 + 0.5) * 96 / 9
    assert found.heatmap[0, int(time), int(frequency)] > 0.9


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_the_heat_of_a_moment_lies_there(kind: str) -> None:
    """What is asked is a part of the last layer in time, and features before attention are local: so is their heat."""
    torch.manual_seed(0)
    if kind == "whisper":
        config = transformers.WhisperConfig(
            d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=64, max_source_positions=60, num_mel_bins=20,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        model, inputs, length, layer = transformers.WhisperModel(config).encoder, torch.randn(2, 20, 120), 120, "conv2"
    else:
        config = transformers.Wav2Vec2Config(
            **SMALL, conv_dim=(16,) * 3, conv_stride=(5, 2, 2), conv_kernel=(10, 3, 3), num_feat_extract_layers=3,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        )  # fmt: skip
        model, inputs, length = transformers.Wav2Vec2Model(config), torch.randn(2, 1200), 1200
        layer = "feature_extractor.conv_layers.2"
    found = seewhy.explain(
        model.eval(), inputs, lambda out: out.last_hidden_state[:, 20:24, 3].sum(1), method="layer_cam", layers=layer
    )
    assert (found.axes, found.heatmap.shape) == (("time",), (2, length))
    chosen = seewhy.explain(model, inputs, lambda out: out.last_hidden_state[:, 20:24, 3].sum(1), method="layer_cam")
    assert chosen.size == (length,)
    total = chosen.maps[chosen.layers[-1]].shape[-1]
    share = chosen.scaled("none").abs()
    start, end = (int(moment * length / total) for moment in (16, 28))
    assert (share[:, start:end].sum(1) / share.sum(1) > 0.5).all()
