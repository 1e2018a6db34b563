"""LibraGrad: each rule by hand, values to the last bit, and accounts that add up on transformers without biases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import seewhy
from seewhy.engine.libra import Libra
from seewhy.errors import InputError, MethodError
from tests.contracts.zoo import CASES


def seeded(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slopes(function, *inputs, balanced=True):
    """The value, and the gradient of its weighted sum at each input."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    made = [leaf * 1 for leaf in leaves]
    if balanced:
        with Libra():
            value = function(*made)
    else:
        value = function(*made)
    weights = seeded(value.shape, 9)
    return value.detach(), torch.autograd.grad((weights * value).sum(), leaves, materialize_grads=True), weights


NORMS = {
    "layer": lambda x: F.layer_norm(x, (5,), seeded(5, 1), seeded(5, 2)),
    "module": nn.LayerNorm((4, 5), dtype=torch.float64),
    "rms": lambda x: F.rms_norm(x, (5,), seeded(5, 1), 1e-6),
    "group": lambda x: F.group_norm(x, 2, seeded(4, 1), seeded(4, 2)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_divide_by_a_constant(name):
    """What is left is linear: the gradient times the input is the value without its bias."""
    function, x = NORMS[name], seeded((3, 4, 5))
    value, (found,), weights = slopes(function, x)
    plain, (other,), _ = slopes(function, x, balanced=False)
    assert torch.equal(value, plain)
    nothing = function(torch.zeros_like(x)).detach()  # the bias
    torch.testing.assert_close((found * x).sum(), (weights * (value - nothing)).sum(), rtol=1e-10, atol=1e-10)
    assert abs((other * x).sum()) < 1e-3 * abs((found * x).sum())  # a norm's own gradient ignores the scale


@pytest.mark.parametrize("function", [F.gelu, F.silu, F.mish, F.hardswish, nn.SiLU(inplace=True), nn.GELU("tanh")])
def test_gates_are_constants(function):
    x = seeded((2, 6))
    x[0, 0] = 0
    value, (found,), weights = slopes(function, x)
    plain, (other,), _ = slopes(function, x, balanced=False)
    assert torch.equal(value, plain)
    gate = torch.where(x == 0, 0, value / x)
    torch.testing.assert_close(found[x != 0], (weights * gate)[x != 0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[0, 0], other[0, 0], rtol=1e-10, atol=1e-10)  # at 0 the gate is the slope
    assert (found - other).abs().max() > 0.05


def test_an_activation_in_place_changes_its_input():
    def both(x):
        return F.silu(x, inplace=True) + x

    x = seeded((2, 3))
    assert torch.equal(slopes(both, x)[0], slopes(both, x, balanced=False)[0])


def test_of_a_product_each_factor_has_half_and_a_weight_all():
    a, b = seeded((2, 3)), seeded((2, 3), 1)
    _, (of_a, of_b), weights = slopes(lambda a, b: a * b, a, b)
    torch.testing.assert_close(of_a, weights * b / 2)
    torch.testing.assert_close(of_b, weights * a / 2)
    scale = nn.Parameter(b)
    _, (whole,), _ = slopes(lambda a: a * scale, a)
    torch.testing.assert_close(whole, weights * b)


def attention(query, key, value):
    return F.scaled_dot_product_attention(query, key, value)


def written_out(query, key, value):
    return F.dropout((query @ key.mT * query.shape[-1] ** -0.5).softmax(-1), 0.0) @ value


@pytest.mark.parametrize("function", [attention, written_out])
def test_attention_weights_are_constants(function):
    q, k, v = (seeded((2, 3, 4, 5), number) for number in range(3))
    value, found, weights = slopes(function, q, k, v)
    torch.testing.assert_close(value, attention(q, k, v))
    assert not found[0].any()
    assert not found[1].any()
    shares = (q @ k.mT * 5**-0.5).softmax(-1)
    torch.testing.assert_close(found[2], shares.mT @ weights)


class Block(nn.Module):
    """Pre-norm attention and a gated MLP, no bias anywhere."""

    def __init__(self, kind, width=12):
        super().__init__()
        norm = {"layer": lambda: nn.LayerNorm(width, bias=False), "rms": lambda: nn.RMSNorm(width)}[kind]
        self.norms = nn.ModuleList([norm(), norm()])
        self.attention = nn.MultiheadAttention(width, 2, bias=False, batch_first=True)
        self.up, self.gate, self.down = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x):
        seen = self.norms[0](x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        seen = self.norms[1](x)
        return x + self.down(F.silu(self.gate(seen)) * self.up(seen))


class Transformer(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(1)
        self.patches = nn.Conv2d(3, 12, 4, stride=4, bias=False)
        self.blocks = nn.Sequential(Block(kind), Block(kind))
        self.head = nn.Linear(12, 4, bias=False)

    def forward(self, image):
        return self.head(F.gelu(self.blocks(self.patches(image).flatten(2).mT)).mean(1))


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_pixels_account_for_the_whole_score(kind):
    model, images = Transformer(kind).eval(), seeded((2, 3, 8, 12)).float()
    classes = torch.tensor([[0, 3], [2, 1]])
    found = seewhy.explain(model, images, classes, method="libra_grad")
    torch.testing.assert_close(found.maps["input"].sum((2, 3)), found.scores, rtol=1e-4, atol=1e-5)
    plain = seewhy.explain(model, images, classes, method="input_x_gradient")
    assert (plain.maps["input"].sum((2, 3)) - plain.scores).abs().max() > 0.1 * plain.scores.abs().max()
    torch.testing.assert_close(plain.scores, found.scores)
    balanced = seewhy.explain(model, images, classes, method="input_x_gradient", gradients="libra")
    torch.testing.assert_close(balanced.maps, found.maps)


def test_layers_account_for_the_whole_score_too():
    model, images = Transformer("layer").eval(), seeded((2, 3, 8, 12)).float()
    found = seewhy.explain(model, images, 1, method="hires_cam", layers="blocks.0", gradients="libra", grid=(2, 3))
    torch.testing.assert_close(found.maps["blocks.0"].sum((1, 2)), found.scores, rtol=1e-4, atol=1e-5)


def test_gradients_at_changed_images_are_balanced():
    """At the end of a path of one step of no length is the image: the gradient there is that of the image."""
    model, images = Transformer("layer").eval(), seeded((2, 3, 8, 12)).float()
    still = seewhy.explain(model, images, 1, method="smooth_grad", samples=1, noise=0.0, gradients="libra")
    torch.testing.assert_close(still.maps, seewhy.explain(model, images, 1, method="saliency", gradients="libra").maps)


def test_a_convolutional_net_is_balanced_as_it_is():
    case = next(case for case in CASES if case.name == "resnet")
    plain = seewhy.explain(case.model(), case.inputs(), 3, method="grad_cam")
    found = seewhy.explain(case.model(), case.inputs(), 3, method="grad_cam", gradients="libra")
    torch.testing.assert_close(found.maps, plain.maps)


def test_methods_that_it_means_nothing_to_refuse_it():
    model = Transformer("layer")
    with pytest.raises(MethodError, match=r"rise takes no gradients(.|\n)*libra_grad"):
        seewhy.Explainer(model, "rise", gradients="libra")
    with pytest.raises(MethodError, match=r"attention_relevance takes gradients at attention weights"):
        seewhy.Explainer(model, "attention_relevance", gradients="libra")
    with pytest.raises(InputError, match=r"unknown gradients(.|\n)*'pruned'"):
        seewhy.Explainer(model, "grad_cam", gradients="pruned")
