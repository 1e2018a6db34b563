"""CLIP Surgery: by hand, and against the slow oracle on the towers of every library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import seewhy
from seewhy import Similarity, targets
from seewhy.engine.attention import of_values
from seewhy.errors import InputError, MethodError
from seewhy.methods.attention.surgery import clip_surgery
from tests.attention_models import CASES
from tests.oracles import attention as oracle

BY_NAME = {case.name: case for case in CASES}


def test_the_path_by_hand():
    """The second block's input, and what the second and the third add; the head sees 10 times the first channel."""
    inputs = [torch.full((1, 2, 1), float(value)) for value in (1, 20, 300)]
    added = [torch.tensor([[[value], [2.0 * value]]]) for value in (4.0, 5.0, 6.0)]

    def read(depth):
        return clip_surgery(inputs, added, lambda path: 10 * path[..., 0], lambda rows: rows, depth=depth)

    torch.testing.assert_close(read(2), 10 * torch.tensor([[20.0 + 5 + 6, 20 + 10 + 12]]))
    torch.testing.assert_close(read(1), 10 * torch.tensor([[306.0, 312]]))
    torch.testing.assert_close(read(6), 10 * torch.tensor([[1.0 + 15, 1 + 30]]))
    with pytest.raises(InputError, match="depth=0"):
        read(0)


def test_attention_among_values_by_hand():
    """Values 0 and 2 of one head of width 1: the first weighs both alike, the second by 1 and e^4."""
    other, values = torch.randn(1, 1, 2, 1), torch.tensor([[[[0.0], [2.0]]]])
    with of_values():
        found = F.scaled_dot_product_attention(other, -other, values)
    e4 = np.exp(4)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 2 * e4 / (1 + e4)]).float())


def numpy(tensor):
    return tensor.detach().double().numpy()


def weights(block):
    """(norm, V, v, P, p, heads) of a block of any library, of 16 channels in two heads."""
    attention = getattr(block, "self_attn", None) or getattr(block, "self_attention", None) or block.attn
    if hasattr(attention, "v_proj"):
        value = attention.v_proj.weight, attention.v_proj.bias
    elif hasattr(attention, "qkv"):
        value = attention.qkv.weight[32:], attention.qkv.bias[32:]
    else:
        value = attention.in_proj_weight[32:], attention.in_proj_bias[32:]
    out = attention.proj if hasattr(attention, "proj") else attention.out_proj
    norm = next(module for module in block.modules() if isinstance(module, nn.LayerNorm))

    def normalise(tokens):
        centred = tokens - tokens.mean(1, keepdims=True)
        length = np.sqrt((centred**2).mean(1, keepdims=True) + norm.eps)
        return centred / length * numpy(norm.weight) + numpy(norm.bias)

    return normalise, *map(numpy, (*value, out.weight, out.bias)), 2


# the blocks, and the scores of one token (C,) alone; an attention that pools reads it as if there were no other
TOWERS = {
    "open_clip vit": (
        lambda model: model.tower.transformer.resblocks,
        lambda model, token: model.head(model.tower.ln_post(token) @ model.tower.proj),
    ),
    "timm vit": (
        lambda model: model.blocks,
        lambda model, token: model.head(model.norm(token)),
    ),
    "timm vit unfused": (
        lambda model: model.blocks,
        lambda model, token: model.head(model.norm(token)),
    ),
    "torchvision vit": (
        lambda model: model.encoder.layers,
        lambda model, token: model.heads(model.encoder.ln(token)),
    ),
    "transformers CLIPVision sdpa": (
        lambda model: model.tower.encoder.layers,
        lambda model, token: model.head(model.tower.post_layernorm(token)),
    ),
    "transformers CLIPVision eager": (
        lambda model: model.tower.encoder.layers,
        lambda model, token: model.head(model.tower.post_layernorm(token)),
    ),
    "transformers SiglipVision sdpa": (
        lambda model: model.tower.encoder.layers,
        lambda model, token: model.head(model.tower.head(model.tower.post_layernorm(token)[None, None])[0]),
    ),
}


def surgery(model, images, depth, blocks_of, score):
    """The oracle's map (images, tokens), from the inputs of the blocks of a model in float64."""
    model = model.double()
    blocks = list(blocks_of(model))
    entered = []
    handles = [
        block.register_forward_pre_hook(
            lambda _m, args, kwargs: entered.append(numpy([*args, *kwargs.values()][0])), with_kwargs=True
        )
        for block in blocks
    ]
    with torch.no_grad():
        outputs = model(images.double())
    for handle in handles:
        handle.remove()

    def head(token):
        with torch.no_grad():
            return score(model, torch.tensor(token)).numpy()

    of_last = [weights(block) for block in blocks[-depth:]]
    found = [
        oracle.clip_surgery([tokens[image] for tokens in entered[-depth:]], of_last, head)
        for image in range(len(images))
    ]
    return np.stack(found), outputs


@pytest.mark.few(5)
@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
@pytest.mark.parametrize("depth", [6, 1])
def test_maps_are_those_of_the_oracle(name, depth):
    """For T targets of one forward; the patches are the last of the tokens."""
    case = BY_NAME[name]
    images, classes = case.images(), torch.tensor([[1, 3], [0, 2], [4, 4]])
    found = seewhy.explain(case.model(), images, classes, method="clip_surgery", depth=depth, batch_size=7)
    expected, _ = surgery(case.model(), images, depth, *TOWERS[name])
    for image in range(3):
        for column, category in enumerate(classes[image].tolist()):
            patches = expected[image, case.prefix :, category]
            mine = found.maps["attention"][image, column].flatten()
            np.testing.assert_allclose(mine, patches, rtol=1e-4, atol=1e-5 * np.abs(patches).max())  # float32


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_a_prompt_against_others_is_the_papers_feature_surgery():
    """The tower's own embedding, two prompts per image against two more; the cosine is the paper's, over a length."""
    case = BY_NAME["open_clip vit"]
    images = case.images()
    texts = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(7))
    others = torch.randn(2, 5, generator=torch.Generator().manual_seed(8))
    found = seewhy.explain(case.model(), images, Similarity(texts, others), method="clip_surgery")
    tokens, outputs = surgery(case.model(), images, 6, *TOWERS["open_clip vit"])
    for image in range(3):
        for column in range(2):
            every = unit(np.concatenate([numpy(texts[image, column])[None], numpy(others)]))
            whole, patches = unit(numpy(outputs[image])), unit(tokens[image, 1:])
            expected, length = oracle.feature_surgery(patches, whole, every)
            mine = found.maps["attention"][image, column].flatten()
            np.testing.assert_allclose(mine * length, expected, rtol=1e-4, atol=1e-5)  # float32
            (score,), _ = oracle.feature_surgery([whole], whole, every)
            assert float(found.scores[image, column]) * length == pytest.approx(score, abs=1e-5)


def test_redundancy_by_hand():
    """The image is like both prompts alike, so both weigh 1: of (1, 0) and (0, 1) half the difference is left."""
    target = targets.resolve(Similarity([1.0, 0.0], [0.0, 1.0]), torch.ones(1, 2), targets.Context(1))
    left = targets.without_redundancy(target, torch.ones(1, 2))
    torch.testing.assert_close(left.embedding, torch.tensor([[0.5, -0.5]]))
    # cosines of 1 and 0 with the image: weights 2 e^2 / (e^2 + 1) and 2 / (e^2 + 1)
    left = targets.without_redundancy(target, torch.tensor([[3.0, 0.0]]))
    torch.testing.assert_close(left.embedding, torch.tensor([[np.exp(2), -1.0]]).float() / (np.exp(2) + 1))


def test_a_target_that_is_against_nothing_stays():
    for target in (Similarity(torch.ones(1, 2)), seewhy.Category(torch.tensor([0]))):
        assert targets.without_redundancy(target, torch.ones(1, 2)) is target


def test_a_block_that_adds_something_else_is_refused():
    """A norm after the attention, of what it says alone: what the block adds is no longer what a module returned."""
    case = BY_NAME["torchvision vit"]
    model = case.model()
    model.encoder.layers[1].ln_2 = nn.Sequential(Half(), model.encoder.layers[1].ln_2)
    assert seewhy.explain(model, case.images(), 1, method="clip_surgery").maps  # inside of what comes next
    for block in model.encoder.layers:
        block.forward = lambda x, block=block: x + 0.5 * block.self_attention(*[block.ln_1(x)] * 3)[0]
    with pytest.raises(MethodError, match=r"got: EncoderBlock(.|\n)*le_grad"):
        seewhy.explain(model, case.images(), 1, method="clip_surgery")


@pytest.mark.parametrize("method", ["clip_surgery", "le_grad"])
def test_one_block_that_runs_twice_is_refused(method):
    """What it returned has no one place that the head could be given something else in."""
    case = BY_NAME["timm vit"]
    model = case.model()
    model.blocks[1] = model.blocks[0]
    with pytest.raises(MethodError, match=r"got: 2 layers of attention in blocks\.0"):
        seewhy.explain(model, case.images(), 1, method=method)


class Half(nn.Module):
    def forward(self, x):
        return x / 2
