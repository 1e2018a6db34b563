"""Attention computed openly is attention: same outputs, the probabilities it says, gradients at them, nothing left."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from seewhy.engine.attention import attend, keep_logits
from seewhy.engine.heads import Attention, Layout, blocks, layers_of
from tests.attention_models import CASES

BY_NAME = {case.name: case for case in CASES}


def opened(calls, batch=3):
    return [Attention((call,), Layout(), batch) for call in calls]


def begin(_):
    torch.set_grad_enabled(True)


def logits(output):
    return output if isinstance(output, torch.Tensor) else output.logits


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("recording", [False, True])
def test_every_attention_is_seen_and_the_logits_stay_the_same(case, recording):
    """Need 7. 1e-5 is some ten roundings of float32 at the size of these logits."""
    model, images = case.model(), case.images()
    with torch.no_grad():
        expected = logits(model(images))
    with torch.set_grad_enabled(recording), keep_logits() as _kept, attend(model) as seen:
        found = logits(model(images))
        calls = opened(seen)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert len(calls) == case.layers
    modules = dict(model.named_modules())
    for call in calls:
        assert "attn" in call.name or "attention" in call.name
        assert call.name in modules
        sums = call.probabilities.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        torch.testing.assert_close(call.logits.softmax(-1), call.probabilities)
        torch.testing.assert_close(call.probabilities @ call.values, call.by_row(call.outputs))
    if case.tokens:
        assert {tuple(call.probabilities.shape) for call in calls[:2]} == {(3, 2, case.tokens, case.tokens)}
        if case.layers == 3:
            assert calls[2].probabilities.shape == (3, 2, 1, case.tokens)


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Beit", "Dinov2"])
def test_probabilities_and_gradients_are_those_that_eager_attention_reports(kind):
    eager, fused = (BY_NAME[f"transformers {kind} {how}"].model().double() for how in ("eager", "sdpa"))
    images = BY_NAME[f"transformers {kind} sdpa"].images().double()
    outputs = eager(images, output_attentions=True)
    expected = torch.autograd.grad(outputs.logits[:, 1].sum(), outputs.attentions)
    fused.requires_grad_(False)
    with attend(fused, begin=begin) as seen:
        score = fused(images).logits[:, 1].sum()
    calls = opened(seen)
    found = [call.slopes(torch.autograd.grad(score, call.outputs, retain_graph=True)) for call in calls]
    for call, reported, slope, right in zip(calls, outputs.attentions, found, expected, strict=True):
        torch.testing.assert_close(call.probabilities, reported)
        torch.testing.assert_close(slope, right)
    assert found[0].abs().max() > 1e-3


OPTIONS = {
    "plain": {},
    "scaled": {"scale": 0.3},
    "causal": {"is_causal": True},
    "added to": {"attn_mask": drawn(1, 4, 5, 7)},
    "masked": {"attn_mask": drawn(5, 7) > 0},
    "masked altogether": {"attn_mask": torch.arange(5)[:, None] < torch.ones(7)},
    "grouped": {"enable_gqa": True},
}
OPTIONS["masked altogether"]["attn_mask"][2] = False


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_scaled_dot_product_attention(options):
    groups = 2 if "enable_gqa" in options else 4
    q, k, v = (drawn(3, *shape).requires_grad_() for shape in ((4, 5, 6), (groups, 7, 6), (groups, 7, 2)))
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    with attend(nn.Identity()) as calls:
        found = F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(output.square().sum(), (q, k, v)) for output in (found, expected)]
    torch.testing.assert_close(*slopes)
    (call,) = opened(calls)
    assert call.probabilities.shape == (3, 4, 5, 7)
    assert call.keys.shape == (3, 4, 7, 6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_with_and_without_weights(need_weights, batch_first, masked):
    """What the module reports if it is asked for weights by head, whichever way it takes, a fast one too."""
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=batch_first).double().eval()
    tokens = drawn(3, 5, 8) if batch_first else drawn(5, 3, 8)
    options = {"attn_mask": drawn(5, 5), "key_padding_mask": drawn(3, 5)} if masked else {}
    with torch.no_grad():
        expected, weights = module(tokens, tokens, tokens, average_attn_weights=False, **options)
        with keep_logits() as kept, attend(module) as calls:
            found, _ = module(tokens, tokens, tokens, need_weights=need_weights, **options)
    torch.testing.assert_close(found, expected)
    (call,) = opened(calls)
    assert kept
    torch.testing.assert_close(call.probabilities, weights)
    assert call.queries.shape == (3, 2, 5, 4)
    torch.testing.assert_close(call.queries @ call.keys.mT / (1 if need_weights else 2) + masks(options), call.logits)


def masks(options):
    """The factor 1/2 is 1/sqrt(d), which this module has in its queries if it is asked for weights."""
    if not options:
        return 0
    return options["attn_mask"] + options["key_padding_mask"][:, None, None]


def test_an_encoder_layers_fast_path_is_kept_out():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).double().eval()
    tokens = drawn(3, 5, 8)
    with torch.no_grad():
        expected = encoder(tokens)
        with attend(encoder) as calls:
            found = encoder(tokens)
    torch.testing.assert_close(found, expected)
    assert [call.name for call in calls] == ["layers.0.self_attn", "layers.1.self_attn"]


def test_what_is_no_attention_is_not_taken_for_it():
    """A softmax of what no product made, of another dimension, over classes; a product that follows no softmax."""

    class Others(nn.Module):
        def forward(self, x):
            gates = x.softmax(-1) @ x.mT
            channels = (x @ x.mT).softmax(1) @ x
            classes = (x.mean(1) @ x.mean(1).mT).softmax(-1) @ x.mean(1)
            return gates.sum() + channels.sum() + classes.sum()

    model, x = Others(), drawn(3, 5, 5)
    with attend(model) as calls:
        model(x)
    assert calls == []


def test_other_ways_to_call_the_same_functions_work_as_ever():
    """Keywords, vectors, a sum beside the product, and attention of two prompts beside three images."""

    class Others(nn.Module):
        def forward(self, x):
            prompts = F.scaled_dot_product_attention(x[:2], x[:2], x[:2])
            weights = torch.softmax(input=x @ x.mT, dim=-1)
            added = torch.baddbmm(x, (x @ x.mT).softmax(dim=-1), x)
            return prompts.sum() + (weights[None] @ x[0, 0]).sum() + added.sum() + torch.bmm(x, mat2=x.mT).sum()

    model, x = Others(), drawn(3, 5, 8)
    expected = model(x[..., :5]), model(x[..., 3:])
    with attend(model) as calls:
        found = model(x[..., :5]), model(x[..., 3:])
    torch.testing.assert_close(found, expected)
    assert [call.shape for call in calls] == [(2, 5, 5)] * 2


def test_all_is_over_when_the_block_is_also_after_an_exception():
    case = BY_NAME["torchvision vit"]
    model, images = case.model(), case.images()

    def fail(*_):
        raise KeyboardInterrupt

    def hooks():
        return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]

    handle = model.encoder.layers[1].mlp.register_forward_hook(fail)
    before = hooks()
    with pytest.raises(KeyboardInterrupt), attend(model) as calls:
        model(images)
    assert len(calls) == 2
    assert hooks() == before
    assert _get_current_function_mode_stack() == []
    handle.remove()
    model(images)
    assert len(calls) == 2


def test_a_call_that_a_model_broke_off_does_not_name_those_after_it():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def forward(self, x):
            with suppress(RuntimeError):
                self.inner(x)
            return x

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.tries = Tries()

        def forward(self, x):
            self.tries(x)
            return F.scaled_dot_product_attention(x, x, x)

    model = Outer().double()
    with attend(model) as calls:
        model(drawn(3, 5, 8))
    assert [call.name for call in calls] == [""]


@pytest.mark.parametrize("need_weights", [False, True])
def test_gradients_reach_the_output_of_a_call(need_weights):
    """Where images and heads share a dimension too: a head's own part of what the projection after it is given."""
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=True).double()
    tokens = drawn(3, 5, 8)
    with attend(module) as calls:
        found, _ = module(tokens, tokens, tokens, need_weights=need_weights)
    (call,) = opened(calls)
    slope = call.by_row(torch.autograd.grad(found[..., 0].sum(), call.outputs))
    expected = module.out_proj.weight[0].detach().reshape(2, 1, 4).expand(3, 2, 5, 4)
    torch.testing.assert_close(slope, expected)


def test_two_threads_do_not_see_one_another():
    case = BY_NAME["timm vit"]
    model, images = case.model(), case.images()
    expected = model(images)
    inside = threading.Barrier(2)

    def watched():
        with attend(model) as calls:
            inside.wait(30)
            model(images)
            inside.wait(30)
        return calls

    def unwatched():
        inside.wait(30)
        found = model(images)
        modes = _get_current_function_mode_stack()
        inside.wait(30)
        return found, modes

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(watched), pool.submit(unwatched)
        calls, (found, modes) = first.result(60), second.result(60)
    assert [call.name for call in calls] == ["blocks.0.attn", "blocks.1.attn"]
    assert modes == []
    torch.testing.assert_close(found, expected)


def layers(name):
    case = BY_NAME[name]
    with torch.no_grad(), attend(model := case.model()) as calls:
        model(case.images())
    return opened(calls)


def test_a_stack_is_told_from_branches():
    """Each layer is made of all before it. Two that are made of the same and go into the same are heads of one."""

    class Heads(nn.Module):
        def forward(self, x):
            y = F.scaled_dot_product_attention(x, x, x) + F.scaled_dot_product_attention(2 * x, x, x)
            return F.scaled_dot_product_attention(y, y, y)

    class Towers(nn.Module):
        def forward(self, x):
            one, other = (F.scaled_dot_product_attention(scale * x, x, x) for scale in (1, 2))
            return F.scaled_dot_product_attention(one, one, one) + F.scaled_dot_product_attention(other, other, other)

    for model, expected in ((Heads(), [(0, 1), (2,)]), (Towers(), None)):
        with attend(model, begin=begin) as calls:
            model(drawn(3, 5, 8))
        assert layers_of(calls) == expected


def test_blocks_are_named_as_far_as_it_takes():
    assert blocks(layers("timm vit")) == ["blocks.0", "blocks.1"]
    assert blocks(layers("torchvision vit")) == ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"]
    assert blocks(layers("transformers Dinov2 sdpa")) == ["dinov2.encoder.layer.0", "dinov2.encoder.layer.1"]
    assert blocks(layers("timm vit")[:1]) == ["blocks.0"]
