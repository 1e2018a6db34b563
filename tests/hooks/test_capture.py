"""What capture records, against numbers worked by hand, torch's own answers, and what a careless hook would give."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy.errors import GradientError, InputError, LayerError
from seewhy.hooks.attach import after_forward

ALL = ("inputs", "outputs", "grad_inputs", "grad_outputs")


def hooks(model: nn.Module) -> int:
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return sum(len(getattr(module, table)) for module in model.modules() for table in tables)


class Product(nn.Module):
    """y = a * b with a = w + x and b = w + 1; the Identities give the tensors of the forward a name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.w, self.a, self.b, self.y = (nn.Identity() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        w = self.w(self.weight)
        return self.y(self.a(w + x) * self.b(w + 1))


def test_gradients_inside_a_forward_by_hand() -> None:
    """dy/da = b = 2, dy/db = a = 3, dy/dw = 2 + 3 = 5."""
    model = Product()
    with seewhy.capture(model, "*", ("outputs", "grad_outputs")) as seen:
        model(torch.tensor(2.0)).backward()
    read = {name: (float(calls[0].outputs), float(calls[0].grad_outputs)) for name, calls in seen.items()}
    assert read == {"w": (1, 5), "a": (3, 2), "b": (2, 3), "y": (6, 1)}
    assert float(model.weight.grad) == 5


@pytest.mark.parametrize(("channels", "expected"), [(1, 9.0), (2, 18.0)])
def test_a_convolution_of_ones_by_hand(channels: int, expected: float) -> None:
    """3x3 ones over 4x4 ones: 9 per channel. The L1 loss against 10 has the gradient sign(output - 10) / 4."""
    model = nn.Sequential(nn.Conv2d(channels, 1, 3, bias=False))
    nn.init.ones_(model[0].weight)
    image = torch.ones(1, channels, 4, 4, requires_grad=True)
    with seewhy.capture(model, nn.Conv2d, ALL) as seen:
        F.l1_loss(model(image), torch.full((1, 1, 2, 2), 10.0)).backward()
    (call,) = seen["0"]
    sign = 1.0 if expected > 10 else -1.0
    assert torch.equal(call.outputs, torch.full((1, 1, 2, 2), expected))
    assert torch.equal(call.inputs[0], torch.ones(1, channels, 4, 4))
    assert torch.equal(call.grad_outputs, torch.full((1, 1, 2, 2), sign / 4))
    # a pixel is seen by 1, 2 or 4 windows
    windows = torch.tensor([[1.0, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]])
    assert torch.equal(call.grad_inputs[0], (windows * sign / 4).expand(1, channels, 4, 4))
    assert torch.equal(image.grad, call.grad_inputs[0])


class Residual(nn.Module):
    """x feeds three branches, one of them an Identity: each has a gradient of its own, and x their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.same = nn.Linear(1, 1, bias=False), nn.Identity()
        nn.init.constant_(self.twice.weight, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(x) + 10 * self.same(x) + 100 * x


def test_a_gradient_is_that_of_one_layer_alone() -> None:
    """A hook on the tensor itself would read 112 everywhere."""
    model, x = Residual(), torch.ones(1, 1, requires_grad=True)
    with seewhy.capture(model, "*", ("grad_inputs", "grad_outputs")) as seen:
        model(x).backward()
    assert float(seen["twice"][0].grad_inputs[0]) == 2
    assert float(seen["same"][0].grad_inputs[0]) == 10
    assert float(seen["same"][0].grad_outputs) == 10
    assert float(x.grad) == 112


class InPlace(nn.Module):
    """Everything that overwrites: an in-place ReLU whose input is used again, `+=`, and a view written to."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.relu, self.flat = nn.Linear(2, 2, bias=False), nn.ReLU(inplace=True), nn.Flatten()
        self.scale.weight = nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))

    def forward(self, x: Tensor) -> Tensor:
        scaled = self.scale(x)
        active = self.relu(scaled)  # writes to `scaled`, whose new values are used below
        flat = self.flat(scaled * 1)
        flat += 10
        return active * flat


def reference(x: Tensor, weight: Tensor) -> Tensor:
    scaled = (x @ weight.T).relu()
    return scaled * (scaled + 10)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("copy", ["auto", True])
def test_in_place_operations_do_not_reach_what_was_captured(detach: bool, copy: str | bool) -> None:
    """scale gives (2, -3), relu (2, 0); forward and gradients stay those of the model without capture."""
    model, x = InPlace(), torch.tensor([[1.0, -1.0]], requires_grad=True)
    with seewhy.capture(model, "*", ALL, detach=detach, copy=copy) as seen:
        result = model(x)
        result.sum().backward()
    weight = model.scale.weight.detach().requires_grad_()
    again = x.detach().requires_grad_()
    expected = reference(again, weight)
    expected.sum().backward()
    assert torch.equal(result, expected)
    assert torch.equal(x.grad, again.grad)
    assert torch.equal(model.scale.weight.grad, weight.grad)
    assert seen["scale"][0].outputs.tolist() == [[2, -3]]
    assert seen["relu"][0].inputs[0].tolist() == [[2, -3]]
    assert seen["relu"][0].outputs.tolist() == [[2, 0]]
    assert seen["flat"][0].outputs.tolist() == [[2, 0]]
    # d/ds s(s + 10) = 2 s + 10 = 14 and 10, of which s + 10 through what it returned; the ReLU lets the first through
    assert seen["relu"][0].grad_outputs.tolist() == [[12, 10]]
    assert seen["relu"][0].grad_inputs[0].tolist() == [[14, 0]]
    assert seen["scale"][0].grad_outputs.tolist() == [[14, 0]]


def test_what_was_overwritten_without_a_copy_is_an_error_not_a_wrong_number() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 2))
    with torch.no_grad(), seewhy.capture(model, ["0", "2"], copy=False) as seen:
        result = model(torch.randn(3, 2))
    assert seen["2"][0].outputs.data_ptr() == result.data_ptr()  # not copied
    with pytest.raises(InputError, match="in-place"):
        _ = seen["0"][0].outputs


def test_nothing_is_copied_until_it_is_overwritten() -> None:
    """The captured tensor shares the memory of the model's; only the one that the ReLU writes to parts with it."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Tanh())
    shared = {}

    def compare(name: str, _: object, output: Tensor) -> None:
        shared[name] = torch._C._is_cow_tensor(output)

    with seewhy.capture(model, "*") as seen, after_forward({"0": model[0]}, compare):
        model(torch.randn(2, 4))
    assert shared == {"0": True}
    assert all(torch._C._is_cow_tensor(seen[name][0].outputs) for name in "012")


@pytest.mark.parametrize("memory", ["numpy", "shared"])
def test_memory_that_is_not_torchs_own_is_copied(memory: str) -> None:
    """A layer that returns its input, which lives in memory that copy-on-write cannot watch."""
    x = torch.ones(2).share_memory_() if memory == "shared" else torch.from_numpy(torch.ones(2).numpy().copy())
    model = nn.Sequential(nn.Identity())
    with seewhy.capture(model, "0") as seen:
        model(x)
    x.zero_()
    assert seen["0"][0].outputs.tolist() == [1, 1]


def test_inference_tensors_are_captured() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(inplace=True))
    nn.init.constant_(model[0].weight, -1.0)
    with torch.inference_mode(), seewhy.capture(model, "*") as seen:
        model(torch.ones(1, 2))
    assert seen["0"][0].outputs.tolist() == [[-2, -2]]
    assert seen["1"][0].outputs.tolist() == [[0, 0]]


@dataclasses.dataclass
class Pair:
    first: Tensor
    rest: dict[str, tuple[Tensor, int]]


class Nested(nn.Module):
    def forward(self, x: Tensor, *, extra: dict[str, list[Tensor]]) -> Pair:
        return Pair(x * 2, {"sum": (x + extra["list"][0], 7)})


class Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Nested()

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x, extra={"list": [x * 3]})
        return out.first + 5 * out.rest["sum"][0]


def test_any_nesting_keeps_its_shape() -> None:
    model, x = Caller(), torch.tensor([1.0], requires_grad=True)
    with seewhy.capture(model, "inner", ALL) as seen:
        model(x).backward()
    (call,) = seen["inner"]
    assert call.inputs == {0: 1, "extra": {"list": [3]}}
    assert call.outputs == Pair(torch.tensor([2.0]), {"sum": (torch.tensor([4.0]), 7)})
    assert call.grad_outputs == Pair(torch.tensor([1.0]), {"sum": (torch.tensor([5.0]), 7)})
    assert call.grad_inputs == {0: 2 + 5, "extra": {"list": [5]}}
    assert float(x.grad) == 2 + 5 + 15


def test_every_call_in_the_order_of_execution() -> None:
    relu, first, second = nn.ReLU(), nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(first.weight, 2.0)
    nn.init.constant_(second.weight, -1.0)
    model = nn.Sequential(nn.Sequential(first, relu), nn.Sequential(second, relu))
    with seewhy.capture(model, "**", what="outputs") as seen:
        model(torch.tensor([[3.0]]))
    assert list(seen) == ["0", "0.0", "0.1", "1", "1.0"]  # one module, one name: the ReLU is "0.1"
    assert [(call.name, call.number) for call in seen.calls][2:] == [("0.1", 0), ("1", 0), ("1.0", 0), ("0.1", 1)]
    assert [float(call.outputs) for call in seen["0.1"]] == [6, 0]


def test_layers_by_name_pattern_module_and_type() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for layers, expected in (("0", "0"), ("[01]", "01"), (model[1], "1"), (nn.Linear, "02"), ([nn.ReLU, "2"], "12")):
        with seewhy.capture(model, layers) as seen:
            model(torch.ones(1, 2))
        assert "".join(seen) == expected
    for layers in ("nope", nn.Conv2d, nn.Linear(2, 2), []):
        with pytest.raises(LayerError), seewhy.capture(model, layers):
            pass
    with pytest.raises(InputError, match="grad_inputs"), seewhy.capture(model, "0", "gradients"):
        pass
    assert hooks(model) == 0


def test_values_in_the_graph_give_their_gradient() -> None:
    """L = sum(relu(2 x)^2): dL/d(2x) = 2 * 2x = 12 at x = 3, although the ReLU works in place."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(inplace=True))
    nn.init.constant_(model[0].weight, 2.0)
    with seewhy.capture(model, "0", detach=False) as seen:
        loss = model(torch.tensor([[3.0]])).square().sum()
    (slope,) = torch.autograd.grad(loss, seen["0"][0].outputs)
    assert float(slope) == 12
    with pytest.raises(InputError, match="graph"), seewhy.capture(model, "0", detach=False, device="cpu"):
        pass


def test_only_a_reduction_is_kept_and_the_bound_holds() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    for layer in model:
        nn.init.constant_(layer.weight, -0.5)
    reduced = {"reduce": lambda tensor: tensor.abs().mean()}
    with seewhy.capture(model, "*", ("outputs", "grad_outputs"), **reduced, max_bytes=16) as seen:
        model(torch.ones(2, 4)).sum().backward()  # four numbers of 4 bytes
    assert [float(seen[name][0].outputs) for name in "01"] == [2, 4]
    assert [float(seen[name][0].grad_outputs) for name in "01"] == [2, 1]
    with pytest.raises(InputError, match="max_bytes=63"), seewhy.capture(model, "*", max_bytes=63):
        model(torch.ones(2, 4))  # 2 x 32 bytes
    assert hooks(model) == 0
    with seewhy.capture(model, "*", max_bytes=64):
        model(torch.ones(2, 4))


def test_a_backward_pass_that_runs_twice_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    with seewhy.capture(model, "0", "grad_outputs", max_bytes=4) as seen:
        result = model(torch.ones(1, 1))
        (3 * result).backward(retain_graph=True)
        (5 * result).backward()
    assert float(seen["0"][0].grad_outputs) == 5


def test_what_is_not_there_is_an_error_that_says_why() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with torch.no_grad(), seewhy.capture(model, "0", ("outputs", "grad_outputs")) as seen:
        model(torch.ones(1, 2))
    with pytest.raises(GradientError, match="no_grad"):
        _ = seen["0"][0].grad_outputs
    with pytest.raises(LayerError, match='what=\\("inputs",\\)'):
        _ = seen["0"][0].inputs
    with pytest.raises(LayerError, match="not chosen"):
        _ = seen["1"]
    assert "1" not in seen
    assert seen.get("1") is None


def test_a_layer_that_is_never_called_is_told() -> None:
    """`out_proj` of torch's attention is a module that is never called; its weight is used directly."""
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    never = "0.self_attn.out_proj"
    with pytest.raises(LayerError, match="out_proj did not run"), seewhy.capture(model, ["0.linear1", never]):
        model(torch.ones(1, 3, 4))
    with seewhy.capture(model, "0.**") as seen:  # a pattern some of whose layers ran is fine
        model(torch.ones(1, 3, 4))
    with pytest.raises(LayerError, match="has not run"):
        _ = seen[never]
    with pytest.raises(LayerError, match="did not run"), seewhy.edit(model, {never: seewhy.scale(2)}):
        model(torch.ones(1, 3, 4))


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("the model's own")


def test_the_models_own_error_comes_through_and_what_ran_before_is_there() -> None:
    model = nn.Sequential(nn.Identity(), Fails())
    with pytest.raises(KeyError, match="the model's own"), seewhy.capture(model, "*", ("inputs", "outputs")) as seen:
        model(torch.ones(1))
    assert seen["0"][0].outputs.tolist() == [1]
    assert seen["1"][0].inputs[0].tolist() == [1]
    with pytest.raises(LayerError, match="did not return"):
        _ = seen["1"][0].outputs
    assert hooks(model) == 0


class Tries(nn.Module):
    """Swallows the error of a part, and goes on with the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.bad, self.good = nn.Sequential(Fails()), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.bad(x)
        except KeyError:
            return self.good(x)


def test_a_call_that_was_broken_off_is_not_taken_for_another() -> None:
    model = Tries()
    with seewhy.capture(model, ["bad.0", "good"]) as seen:
        model(torch.ones(1))
        model(torch.zeros(1))
    assert [float(call.outputs) for call in seen["good"]] == [1, 0]
    with pytest.raises(LayerError, match="did not return"):
        _ = seen["bad.0"][0].outputs


def test_other_threads_are_left_alone_unless_asked() -> None:
    model = nn.Sequential(nn.Identity())

    def elsewhere() -> None:
        worker = threading.Thread(target=model, args=(torch.ones(1) * 5,))
        worker.start()
        worker.join()

    with seewhy.capture(model, "0") as own, seewhy.capture(model, "0", threads="all") as everything:
        model(torch.ones(1))
        elsewhere()
    assert [float(call.outputs) for call in own["0"]] == [1]
    assert [float(call.outputs) for call in everything["0"]] == [1, 5]


@pytest.mark.parametrize("detach", [True, False])
def test_nothing_is_kept_alive(detach: bool) -> None:
    """With the garbage collector off: no reference cycle holds activations, gradients or the graph."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 2))
    gc.collect()
    gc.disable()
    try:
        with seewhy.capture(model, "*", ALL, detach=detach) as seen:
            x = torch.randn(3, 2, requires_grad=True)
            loss = model(x).square().sum()
            torch.autograd.grad(loss, x, create_graph=not detach)
        watched = [weakref.ref(call.outputs) for call in seen.calls] + [weakref.ref(x), weakref.ref(loss)]
        watched += [weakref.ref(call.grad_outputs) for call in seen.calls] + [weakref.ref(call) for call in seen.calls]
        del seen, x, loss
        assert [ref() for ref in watched if ref() is not None] == []
    finally:
        gc.enable()
    assert hooks(model) == 0


class Checkpointed(nn.Module):
    """Two layers inside a checkpoint; `shared` runs twice in it."""

    def __init__(self, use_reentrant: bool, times: int) -> None:
        super().__init__()
        self.inner, self.shared = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.use_reentrant, self.times = use_reentrant, times

    def segment(self, x: Tensor) -> Tensor:
        x = self.inner(x).tanh()
        for _ in range(self.times):
            x = self.shared(x).tanh()
        return x

    def forward(self, x: Tensor) -> Tensor:
        if self.use_reentrant is None:
            return self.segment(x)
        return checkpoint(self.segment, x, use_reentrant=self.use_reentrant)


def checkpointed(use_reentrant: bool | None, times: int = 1) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Checkpointed(use_reentrant, times), torch.randn(3, 2, requires_grad=True)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputation_is_no_new_call_and_its_gradients_are_right(use_reentrant: bool) -> None:
    plain, x = checkpointed(None)
    with seewhy.capture(plain, "*", ALL) as expected:
        plain(x).square().sum().backward()
    model, again = checkpointed(use_reentrant)
    with seewhy.capture(model, "*", ALL) as seen:
        model(again).square().sum().backward()
    for name in ("inner", "shared"):
        (call,), (wanted,) = seen[name], expected[name]
        assert torch.equal(call.inputs[0], wanted.inputs[0])
        assert torch.equal(call.outputs, wanted.outputs)
        assert torch.equal(call.grad_inputs[0], wanted.grad_inputs[0])
        assert torch.equal(call.grad_outputs, wanted.grad_outputs)
    assert torch.equal(x.grad, again.grad)
    assert torch.equal(plain.inner.weight.grad, model.inner.weight.grad)


def test_calls_that_a_reentrant_checkpoint_repeats_are_not_mixed_up() -> None:
    """use_reentrant=False tells the calls apart; with True they cannot be told, and that is said."""
    plain, x = checkpointed(None, times=2)
    with seewhy.capture(plain, "shared", "grad_outputs") as expected:
        plain(x).sum().backward()
    model, x = checkpointed(False, times=2)
    with seewhy.capture(model, "shared", "grad_outputs") as seen:
        model(x).sum().backward()
    for call, wanted in zip(seen["shared"], expected["shared"], strict=True):
        assert torch.equal(call.grad_outputs, wanted.grad_outputs)
    model, x = checkpointed(True, times=2)
    with seewhy.capture(model, ["inner", "shared"], ("outputs", "grad_outputs")) as seen:
        model(x).sum().backward()
    assert len(seen["shared"]) == 2
    assert seen["inner"][0].grad_outputs.any()
    with pytest.raises(GradientError, match="use_reentrant=False"):
        _ = seen["shared"][0].grad_outputs


def test_under_autocast_values_and_gradients_are_what_the_layer_saw() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    nn.init.constant_(model[0].weight, 0.5)
    nn.init.constant_(model[1].weight, 3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16), seewhy.capture(model, "*", ALL) as seen:
        model(torch.ones(1, 2)).float().sum().backward()
    call = seen["0"][0]
    assert (call.inputs[0].dtype, call.outputs.dtype, call.grad_outputs.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.bfloat16,
    )
    assert call.outputs.tolist() == [[1, 1]]
    assert call.grad_outputs.tolist() == [[3, 3]]


def test_a_training_step_under_capture_is_bit_identical() -> None:
    def train(watching: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(16, 2),
        )  # fmt: skip
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            images = torch.randn(5, 1, 4, 4)
            if watching:
                with seewhy.capture(model, "*", ALL):
                    model(images).square().mean().backward()
            else:
                model(images).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
        return list(model.state_dict().values())

    for plain, watched in zip(train(False), train(True), strict=True):
        assert torch.equal(plain, watched)


def test_a_compiled_model_is_recorded_through_the_module_inside() -> None:
    """Compiled before the block: a hook added afterwards would not be called."""
    inner = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    nn.init.ones_(inner[0].weight)
    compiled = torch.compile(inner, backend="eager")
    x = torch.ones(1, 2)
    compiled(x)
    with seewhy.capture(compiled, "0", ("outputs", "grad_outputs")) as seen:
        compiled(x).sum().backward()
    assert seen["0"][0].outputs.tolist() == [[2, 2]]
    assert seen["0"][0].grad_outputs.tolist() == [[1, 1]]
    with seewhy.edit(compiled, {"0": seewhy.scale(3)}):
        assert compiled(x).tolist() == [[6, 6]]
    assert compiled(x).tolist() == [[2, 2]]


def test_a_ddp_model_is_recorded_and_edited_through_the_module_inside(tmp_path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        inner = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        nn.init.constant_(inner[0].weight, 2.0)
        nn.init.constant_(inner[1].weight, 3.0)
        model = nn.parallel.DistributedDataParallel(inner)
        with (
            seewhy.edit(model, {"1": seewhy.scale(10)}, "grad_outputs"),
            seewhy.capture(model, "*", ("outputs", "grad_outputs")) as seen,
        ):
            model(torch.ones(1, 1)).backward()
        assert float(seen["0"][0].outputs) == 2
        assert float(seen["1"][0].grad_outputs) == 10
        assert float(inner[0].weight.grad) == 30  # 10 x 3 x 1, and the reducer passes it on
    finally:
        torch.distributed.destroy_process_group()


class Block(nn.Module):
    """Returns its inner layer's very tensor, or writes to it first."""

    def __init__(self, *, overwrites: bool) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.overwrites = overwrites

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x * 1.0)
        return x.mul_(3) if self.overwrites else x


@pytest.mark.parametrize(("overwrites", "kept", "calls"), [(False, [2.0, 2.0], 1), (True, [2.0, 6.0], 2)])
def test_what_a_block_and_its_last_layer_both_return_is_reduced_once(
    overwrites: bool, kept: list[float], calls: int
) -> None:
    """An in-place operation in between makes it another value."""
    reduced = []

    def total(tensor: Tensor) -> float:
        reduced.append(float(tensor.sum()))
        return reduced[-1]

    model = nn.Sequential(Block(overwrites=overwrites))
    with seewhy.capture(model, ["0.inner", "0"], reduce=total) as seen:
        model(torch.ones(2))
    assert [seen["0.inner"][0].outputs, seen["0"][0].outputs] == kept
    assert len(reduced) == calls
