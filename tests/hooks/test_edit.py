"""What edits make of numbers worked by hand, how blocks nest, and that nothing stays behind."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, InputTypeError, LayerError
from tests.hooks.test_capture import Product, checkpointed, hooks


def linear(*weights: float) -> nn.Sequential:
    model = nn.Sequential(*[nn.Linear(1, 1, bias=False) for _ in weights])
    for layer, weight in zip(model, weights, strict=True):
        nn.init.constant_(layer.weight, weight)
    return model


def test_doubling_then_tripling_a_gradient_of_5_gives_30() -> None:
    """In one edit, in two entries of one, and in two blocks; in the order given, as 2 (5 + 1) = 12 and 2 x 5 + 1."""
    double, triple = seewhy.scale(2), seewhy.scale(3)

    def weight_gradient(*edits: dict) -> float:
        model = Product()
        with seewhy.edit(model, edits[0], "grad_outputs"), seewhy.edit(model, edits[-1] if edits[1:] else {"y": []}):
            model(torch.tensor(2.0)).backward()
        return float(model.weight.grad)

    assert weight_gradient({"w": []}) == 5
    assert weight_gradient({"w": [double, triple]}) == 30
    assert weight_gradient({"w": double, "[w]": triple}) == 30
    assert weight_gradient({"w": [lambda g: g + 1, double]}) == 12
    assert weight_gradient({"w": [double, lambda g: g + 1]}) == 11


@pytest.mark.parametrize("what", ["grad_outputs", "grad_inputs"])
def test_blocks_on_gradients_run_in_the_order_of_their_nesting(what: str) -> None:
    """(1 + 1) x 2 = 4, (1 x 2) + 1 = 3; a capture sees what the blocks around it made."""

    def gradient(outer, inner) -> tuple[float, float]:
        model, x = linear(1.0), torch.ones(1, 1, requires_grad=True)
        with (
            seewhy.edit(model, {"0": outer}, what),
            seewhy.edit(model, {"0": inner}, what),
            seewhy.capture(model, "0", what) as seen,
        ):
            model(x).backward()
        call = seen["0"][0]
        return float(x.grad), float(call.grad_outputs if what == "grad_outputs" else call.grad_inputs[0])

    assert gradient(lambda g: g + 1, seewhy.scale(2)) == (4, 4)
    assert gradient(seewhy.scale(2), lambda g: g + 1) == (3, 3)


def test_blocks_on_values_nest_and_undo_in_order() -> None:
    model, x = linear(1.0), torch.ones(1, 1)
    with seewhy.capture(model, "0") as before, seewhy.edit(model, {"0": lambda y: y + 1}):
        with seewhy.edit(model, {"0": seewhy.scale(2)}), seewhy.capture(model, "0") as after:
            assert float(model(x)) == 4
        assert float(model(x)) == 2
    assert float(model(x)) == 1
    assert [float(call.outputs) for call in before["0"]] == [1, 1]
    assert [float(call.outputs) for call in after["0"]] == [4]
    assert hooks(model) == 0


def test_inputs_outputs_and_their_gradients_by_hand() -> None:
    """y = 5 (3 x) at x = 2 with a scaling by 10 at one place: y, and the gradients before and after it."""
    expected = {"inputs": (300, 150), "outputs": (300, 150), "grad_inputs": (30, 150), "grad_outputs": (30, 150)}
    for what, (value, slope) in expected.items():
        model, x = linear(3.0, 5.0), torch.tensor([[2.0]], requires_grad=True)
        with seewhy.edit(model, {"1": seewhy.scale(10)}, what):
            y = model(x)
            y.backward()
        assert (float(y), float(x.grad)) == (value, slope)
        # dy/dw of the second layer: its input, times what was scaled
        assert float(model[1].weight.grad) == (6 if what == "grad_inputs" else 60)


def test_everything_is_undone_when_the_block_raises() -> None:
    model = linear(1.0)

    def interrupted() -> None:
        with seewhy.edit(model, {"0": seewhy.scale(2)}), seewhy.capture(model, "0"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert hooks(model) == 0
    with pytest.raises(InputTypeError, match="did not return a tensor"), seewhy.edit(model, {"0": lambda y: None}):
        model(torch.ones(1, 1))
    assert hooks(model) == 0
    for wrong in ({}, {"nope": seewhy.scale(2)}):
        with pytest.raises(LayerError), seewhy.edit(model, wrong):
            pass
    assert hooks(model) == 0


@pytest.mark.parametrize(("threads", "expected"), [("own", 1.0), ("all", 2.0)])
def test_other_threads_are_edited_only_if_asked(threads: str, expected: float) -> None:
    model, results = linear(1.0), []
    with seewhy.edit(model, {"0": seewhy.scale(2)}, threads=threads):
        worker = threading.Thread(target=lambda: results.append(float(model(torch.ones(1, 1)))))
        worker.start()
        worker.join()
        assert float(model(torch.ones(1, 1))) == 2
    assert results == [expected]


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("what", ["outputs", "inputs", "grad_outputs", "grad_inputs"])
def test_edits_hold_in_the_recomputation_of_a_checkpoint(use_reentrant: bool, what: str) -> None:
    gradients = []
    for mode in (None, use_reentrant):
        model, x = checkpointed(mode)
        with seewhy.edit(model, {"inner": [seewhy.scale(2), seewhy.zero(0)], "shared": seewhy.scale(0.5)}, what):
            model(x).square().sum().backward()
        gradients.append((x.grad, model.inner.weight.grad, model.shared.weight.grad))
    for plain, repeated in zip(*gradients, strict=True):
        assert plain.any()
        assert torch.equal(plain, repeated)


def test_ready_made_edits_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    before = x.clone()
    torch.testing.assert_close(seewhy.clip(1)(x), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert seewhy.clip(2)(torch.tensor(-5.0)) == -2
    assert torch.equal(seewhy.scale(-2)(x), torch.tensor([[-6.0, -8.0], [-0.6, -0.8], [0.0, 0.0]]))
    assert seewhy.mask(torch.tensor([0, 2]))(x)[0].tolist() == [0, 8]
    assert seewhy.mask(torch.tensor([1, 0, 1]), dim=0)(x).tolist()[:2] == [[3, 4], [0, 0]]
    assert seewhy.mask(torch.tensor([[0.0], [1.0], [1.0]]))(x)[0].tolist() == [0, 0]
    assert seewhy.zero(1)(torch.tensor([[1.0, float("nan")]])).tolist() == [[1, 0]]
    assert seewhy.zero([0, -1], dim=-1)(torch.ones(1, 2, 3)).tolist() == [[[0, 1, 0], [0, 1, 0]]]
    assert seewhy.replace(7)(x).tolist() == [[7, 7]] * 3
    assert seewhy.replace(torch.tensor([1, 2]))(x).tolist() == [[1, 2]] * 3
    assert torch.equal(x, before)
    seen = torch.randn(3, 2, generator=torch.Generator().manual_seed(4))
    assert torch.equal(seewhy.noise(0.5, generator=torch.Generator().manual_seed(4))(x), x + 0.5 * seen)
    for function in (seewhy.mask(torch.ones(3)), seewhy.zero(0, dim=2)):
        with pytest.raises(InputError, match="dim="):
            function(x)
    with pytest.raises(InputError, match="positive"):
        seewhy.clip(0)


def test_clip_has_a_finite_gradient_at_zero() -> None:
    x = torch.zeros(1, 2, requires_grad=True)
    seewhy.clip(1.0)(x).sum().backward()
    assert x.grad.tolist() == [[1, 1]]


def test_noise_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    seewhy.noise(1.0)(torch.ones(3))
    assert torch.equal(state, torch.get_rng_state())


def test_pruned_channels_are_pruned_in_what_follows() -> None:
    """Two channels that the head sums with weights 1 and 10: without the second only the first is left."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2, 1, bias=False)
    )
    nn.init.ones_(model[0].weight)
    model[3].weight = nn.Parameter(torch.tensor([[1.0, 10.0]]))
    x: Tensor = torch.full((1, 1, 1, 1), 2.0)
    assert float(model(x)) == 22
    with seewhy.edit(model, {nn.Conv2d: seewhy.mask(torch.tensor([1.0, 0.0]))}):
        assert float(model(x)) == 2
    assert float(model(x)) == 22
