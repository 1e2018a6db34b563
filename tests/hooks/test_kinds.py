"""Models that hooks have failed on: what is called the model, shared layers, objects, copies, forwards in backwards."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy.errors import InputError

ALL = ("inputs", "outputs", "grad_inputs", "grad_outputs")


def twice(times: float = 2.0) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, times)
    return layer


def counts(model: nn.Module) -> list[int]:
    """Hooks and forwards of one's own, by module."""
    return [
        len(module._forward_hooks) + len(module._forward_pre_hooks) + ("forward" in vars(module))
        for module in model.modules()
    ]


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel], ids=["plain", "wrapped"])
@pytest.mark.parametrize("by", ["module", "name", "wrapper"])
def test_the_model_itself_is_a_layer(wrap, by: str) -> None:
    """y = 3 (2 x): at x = 1 it returns 6, and dy/dx is 6."""
    inner = nn.Sequential(twice(), twice(3.0))
    model = wrap(inner)
    layer = {"module": inner, "name": "", "wrapper": model}[by]
    x = torch.ones(1, 1, 1, 1, requires_grad=True)
    with seewhy.capture(model, layer, ALL) as seen:
        inner(x).backward()
    (call,) = seen[""]
    assert (float(call.inputs[0]), float(call.outputs)) == (1, 6)
    assert (float(call.grad_inputs[0]), float(call.grad_outputs)) == (6, 1)
    with seewhy.edit(model, {layer: seewhy.scale(10)}):
        assert float(inner(x)) == 60
    assert seewhy.features(model, x, layer)[""].tolist() == [[[[6]]]]


def test_a_model_that_calls_itself_is_recorded_call_by_call() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = twice()

        def forward(self, x: Tensor, times: int = 2) -> Tensor:
            x = self.layer(x)
            return self(x, times - 1) if times else x

    model = Again()
    with seewhy.capture(model, [model, "layer"], ("outputs", "grad_outputs")) as seen:
        model(torch.ones(1, 1)).backward()
    assert [float(call.outputs) for call in seen["layer"]] == [2, 4, 8]
    assert [float(call.grad_outputs) for call in seen["layer"]] == [4, 2, 1]
    assert [float(call.outputs) for call in seen[""]] == [8, 8, 8]


class Shared(nn.Module):
    """`first` and `second` are one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = twice()
        self.rest = nn.ModuleList([self.first, twice(5.0)])

    def forward(self, x: Tensor) -> Tensor:
        return self.rest[1](self.rest[0](self.first(x)))


@pytest.mark.parametrize("asked", ["rest.0", "module.rest.0", "_orig_mod.module.rest.0", ["first", "rest.0"], "rest.*"])
def test_a_shared_layer_goes_by_all_its_names(asked) -> None:
    model, x = Shared(), torch.ones(1, 1, 1, 1)
    with seewhy.capture(nn.DataParallel(model), asked) as seen:
        model(x)
    for name in ("first", "rest.0", "module.first"):
        assert [float(call.outputs) for call in seen[name]] == [2, 4]
    with seewhy.edit(model, {asked if isinstance(asked, str) else "rest.0": lambda tensor: tensor + 1}):
        assert float(model(x)) == (5 * 7 + 1 if asked == "rest.*" else 5 * 7)
    found = seewhy.features(model, x, ["rest.0", "rest.0#1", "first"])
    assert {name: value.flatten().tolist() for name, value in found.items()} == {
        "rest.0": [2],
        "rest.0#1": [4],
        "first": [2],
    }


class Slots:
    __slots__ = ("hidden", "parent")

    def __init__(self, hidden: Tensor, parent: object = None) -> None:
        self.hidden, self.parent = hidden, parent


class Own:
    """An object that takes other arguments than what is in it, and refers to itself."""

    def __init__(self, hidden: Tensor, *, sure: bool) -> None:
        assert sure
        self._hidden, self.me = hidden, self

    @property
    def hidden(self) -> Tensor:
        return self._hidden


OBJECTS = {
    "namespace": lambda hidden: SimpleNamespace(hidden=hidden, more={"count": 3}),
    "slots": lambda hidden: Slots(hidden),
    "own": lambda hidden: Own(hidden, sure=True),
    "nested": lambda hidden: SimpleNamespace(hidden=hidden, inside=[Slots(hidden * 7)]),
}


class Speaks(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.inner, self.make = twice(), make

    def forward(self, x: Tensor):
        return self.make(self.inner(x))


class Listens(nn.Module):
    def forward(self, spoken) -> Tensor:
        return spoken.hidden * 10


@pytest.mark.parametrize("kind", OBJECTS)
def test_layers_that_return_objects(kind: str) -> None:
    """y = 10 (2 x): what is returned is 2 and its gradient 10, whatever it is wrapped in."""
    model = nn.Sequential(Speaks(OBJECTS[kind]), Listens())
    with seewhy.capture(model, "*", ALL) as seen:
        model(torch.ones(1, 1)).backward()
    call = seen["0"][0]
    assert type(call.grad_outputs) is type(call.outputs) is type(OBJECTS[kind](torch.ones(1)))
    assert (float(call.outputs.hidden), float(call.grad_outputs.hidden)) == (2, 10)
    assert float(seen["1"][0].inputs[0].hidden) == 2
    with seewhy.edit(model, {"0": seewhy.scale(3)}):
        assert float(model(torch.ones(1, 1))) == 60
    with seewhy.edit(model, {"0": seewhy.scale(3)}, "grad_outputs"):
        x = torch.ones(1, 1, requires_grad=True)
        model(x).backward()
    assert float(x.grad) == 60


def test_an_object_that_layers_write_to_stays_that_object() -> None:
    """A cache: the copies of its tensors would be lost to the other layers."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = twice()

        def forward(self, x: Tensor, cache: SimpleNamespace) -> Tensor:
            x = self.layer(x)
            cache.kept.append(x)
            return x + sum(cache.kept)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Writes(), Writes()])

        def forward(self, x: Tensor) -> Tensor:
            cache = SimpleNamespace(kept=[])
            for layer in self.layers:
                x = layer(x, cache)
            assert len(cache.kept) == 2
            return x

    model, x = Model(), torch.ones(1, 1)
    expected = model(x)
    with seewhy.capture(model, "layers.*", ALL):
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("block", ["capture", "edit", "forward", "replay"])
def test_a_deep_copy_has_none_of_our_hooks(block: str) -> None:
    copies = []

    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
            self.body.register_forward_hook(lambda *_: None)  # the caller's own stays

        def forward(self, x: Tensor) -> Tensor:
            copies.append(copy.deepcopy(self.body))
            copies[-1](x)
            return self.body(x).mean((2, 3))

    model, x = Copies(), torch.rand(1, 1, 4, 4)
    if block == "capture":
        with seewhy.capture(model, "**", ALL) as seen:
            model(x)
        assert len(seen["body.0"]) == 1, "the copy is another model"
    elif block == "edit":
        with seewhy.edit(model, {"body.0": seewhy.scale(0)}):
            model(x)
    else:
        seewhy.explain(model, x, 0, method="grad_cam" if block == "forward" else "ablation_cam", layers="body.1")
    assert [counts(one) for one in copies] == [[1, 0, 0]] * len(copies)
    assert all(torch.equal(one(x), model.body(x)) for one in copies)
    assert counts(model) == [0, 1, 0, 0]


def test_saving_a_model_inside_a_block_is_an_error_that_says_so() -> None:
    model = nn.Sequential(twice())
    with seewhy.capture(model, "0") as seen, pytest.raises(InputError, match="save it after the block"):
        pickle.dumps(model)
    assert len(seen) == 0
    pickle.dumps(model)


@pytest.mark.parametrize("mode", ["plain", "no_grad", "checkpoint"])
@pytest.mark.parametrize("what", ["outputs", ("outputs", "grad_outputs")])
def test_forwards_inside_a_backward_pass_are_calls(mode: str, what) -> None:
    """In a hook on the loss; checkpoints, which repeat a call, are none."""
    model = nn.Sequential(twice())

    def run(x: Tensor) -> Tensor:
        return checkpoint(model, x, use_reentrant=False) if mode == "checkpoint" else model(x)

    def again(_: Tensor) -> None:
        with torch.set_grad_enabled(mode != "no_grad"):
            model(torch.full((1, 1), 5.0))

    with seewhy.capture(model, "0", what) as seen:
        outputs = run(torch.ones(1, 1, requires_grad=True))
        outputs.register_hook(again)
        outputs.backward()
    assert [float(call.outputs) for call in seen["0"]] == [2, 10]
    if what != "outputs":
        assert float(seen["0"][0].grad_outputs) == 1


def test_complex_tensors_pass_and_are_edited() -> None:
    """y = |2 z| at z = 3 + 4i: 10, and its gradient with respect to 2 z is of length 1."""

    class Double(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 2 * z

    model = nn.Sequential(Double())
    z = torch.tensor([3 + 4j], requires_grad=True)
    with seewhy.capture(model, "0", ("outputs", "grad_outputs")) as seen:
        model(z).abs().sum().backward()
    assert seen["0"][0].outputs.tolist() == [6 + 8j]
    torch.testing.assert_close(seen["0"][0].grad_outputs, torch.tensor([0.6 + 0.8j]))
    with seewhy.edit(model, {"0": seewhy.scale(0.5)}):
        assert model(z).tolist() == [3 + 4j]


def test_a_scripted_part_is_a_layer() -> None:
    part = torch.jit.trace(twice(), torch.ones(1, 1))
    model = nn.Sequential(twice(3.0), part)
    with seewhy.capture(model, "1", ("outputs", "grad_outputs")) as seen:
        model(torch.ones(1, 1)).backward()
    assert (float(seen["1"][0].outputs), float(seen["1"][0].grad_outputs)) == (6, 1)
    with seewhy.edit(model, {"1": seewhy.scale(10)}):
        assert float(model(torch.ones(1, 1))) == 60
    assert float(model(torch.ones(1, 1))) == 6


def test_packed_sequences_keep_their_form() -> None:
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.lstm = nn.Linear(2, 2), nn.LSTM(2, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(self.embed(x), [4, 2], batch_first=True)
            return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    model, x = Packs(), torch.randn(2, 4, 2)
    expected = model(x)
    with seewhy.capture(model, "lstm", ALL) as seen:
        outputs = model(x)
        outputs.sum().backward()
    assert torch.equal(outputs, expected)
    call = seen["lstm"][0]
    assert type(call.outputs[0]) is type(call.inputs[0]) is nn.utils.rnn.PackedSequence
    assert call.grad_outputs[0].data.tolist() == torch.ones(6, 3).tolist()
    assert bool(call.grad_inputs[0].data.any())
