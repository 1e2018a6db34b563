"""The guard: nothing shows afterwards that the model ran."""

from __future__ import annotations

import collections
import copy
import json
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine import turns
from seewhy.engine.guard import _devices, guard
from seewhy.errors import ConcurrencyError
from seewhy.hooks.undo import undoing
from tests.engine.interrupting import fingerprint, stance


class Net(nn.Module):
    """A small classifier. `act` runs in each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)
        self.register_buffer("steps", torch.zeros(3))

    def act(self) -> None: ...

    def forward(self, image: Tensor) -> Tensor:
        self.act()
        return self.fc(self.norm(self.conv(image)).relu().mean((-2, -1)))


def images() -> Tensor:
    return torch.linspace(-1, 2, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


# 1. Weights, buffers and gradients


class ScalesByData(Net):
    def act(self) -> None:
        self.fc.weight.data = torch.renorm(self.fc.weight.data, 2, 0, 0.1)


class ScalesInPlace(Net):
    def act(self) -> None:
        with torch.no_grad():
            self.fc.weight.mul_(0.5)
            self.conv.weight *= 2
            self.conv.bias[0] = 7


class ScalesPastTheVersion(Net):
    def act(self) -> None:
        self.fc.weight.data.mul_(0.5)
        self.fc.bias.detach().numpy()[:] = 3
        with torch.no_grad():
            torch._foreach_add_([self.conv.bias], 1.0)
        torch.add(self.conv.weight.data, 1, out=self.conv.weight.data)


class Initialises(Net):
    def act(self) -> None:
        nn.init.normal_(self.fc.weight, generator=torch.Generator().manual_seed(0))
        torch.nn.utils.vector_to_parameters(torch.ones(5), [self.fc.bias])


class WritesBuffers(Net):
    def act(self) -> None:
        self.steps.data += 1
        self.norm.running_mean.numpy()[:] = 5
        self.norm.running_var = self.norm.running_var * 2


class NormOfItsOwn(nn.BatchNorm2d):
    def forward(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            self.running_mean.mul_(0.9).add_(image.mean((0, 2, 3)), alpha=0.1)
        self.num_batches_tracked += 1
        return super().forward(image)


class AdaptsItsNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = NormOfItsOwn(4)


class Trains(Net):
    def act(self) -> None:
        self.train()


class GoesBackward(Net):
    def act(self) -> None:
        (self.fc.weight.sum() * 2).backward()
        torch.autograd.backward(self.fc.bias.square().sum())
        self.conv.weight.requires_grad_(False)


class LearnsAtTest(Net):
    def act(self) -> None:
        optimiser = torch.optim.SGD(self.fc.parameters(), lr=0.1, momentum=0.9)
        optimiser.zero_grad()
        self.fc.weight.square().sum().backward()
        optimiser.step()


class FeedsABank(Net):
    """A buffer too large to be copied on suspicion."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(2**20 + 1))

    def act(self) -> None:
        self.bank[3] = 1
        self.bank.data[4] = 2


WRITERS = [ScalesByData, ScalesInPlace, ScalesPastTheVersion, Initialises, WritesBuffers, AdaptsItsNorm, Trains]
WRITERS += [GoesBackward, LearnsAtTest, FeedsABank]


@pytest.mark.parametrize("grads", [False, True], ids=["without_grads", "with_grads"])
@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_forward_writes_is_put_back(kind: type[Net], grads: bool) -> None:
    """Also in the second call, which is not watched, and in the one after the weights have changed."""
    torch.manual_seed(0)
    model = kind()
    if grads:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
    for call in range(4):
        before = fingerprint(model)
        with guard(model):
            model(images())
            assert fingerprint(model) != before, "the forward wrote nothing"
        assert fingerprint(model) == before, f"call {call}"
        if call == 2:
            with torch.no_grad():
                model.fc.bias.add_(1)


def test_a_gradient_of_another_thread_stays() -> None:
    model = Net()
    with guard(model):
        model(images())
        thread = threading.Thread(target=lambda: model.fc.weight.sum().backward())
        thread.start()
        thread.join()
    assert torch.equal(model.fc.weight.grad, torch.ones(5, 4))


def test_a_write_that_begins_later_is_an_error_and_then_kept() -> None:
    """The limit in the docstring: nobody has a copy of a weight that no earlier forward wrote to."""

    class WritesAtTimes(Net):
        def forward(self, image: Tensor) -> Tensor:
            if image.max() > 10:
                with torch.no_grad():
                    self.fc.weight.mul_(0.5)
            return super().forward(image)

    model = WritesAtTimes()
    with guard(model):
        model(images())
    with pytest.raises(ConcurrencyError, match="weights changed"), guard(model):
        model(images() * 100)
    before = fingerprint(model)
    with guard(model):
        model(images() * 100)
    assert fingerprint(model) == before


# 1. Attributes


class KeepsState(Net):
    """Every kind of attribute that a forward may change, at one and more levels."""

    def __init__(self) -> None:
        super().__init__()
        self.deque = collections.deque([1, 2], maxlen=2)
        self.default = collections.defaultdict(list, a=[1])
        self.counter = collections.Counter("ab")
        self.ordered = collections.OrderedDict(a=1, b=2)
        self.nested = [[1, [2]], {"a": {3}}, (4, [5])]
        self.bytes = bytearray(b"ab")
        self.tensor = torch.zeros(3)
        self.array = np.zeros(3)
        self.listed = [torch.zeros(2), np.zeros(2)]
        self.space = SimpleNamespace(count=0, seen=[])
        self.torch_generator = torch.Generator().manual_seed(1)
        self.numpy_generator = np.random.default_rng(1)
        self.legacy_generator = np.random.RandomState(1)
        self.python_generator = random.Random(1)
        self.hidden = [nn.BatchNorm2d(3)]  # unseen by `modules()`, and in train mode

    def act(self) -> None:
        self.deque.append(3)
        self.default["a"].append(2)
        self.default["b"].append(2)
        self.counter["a"] += 1
        self.ordered.move_to_end("a")
        self.nested[0][1].append(6)
        self.nested[1]["a"].add(6)
        self.nested[2][1].clear()
        self.bytes += b"c"
        self.tensor.data += 1
        self.array += 1
        self.listed[0].add_(1)
        self.listed[1][0] = 1
        self.space.count += 1
        self.space.seen.append(1)
        self.space.new = 1
        self.conv.seen = 1
        torch.rand(2, generator=self.torch_generator)
        self.numpy_generator.random()
        self.legacy_generator.rand()
        self.python_generator.random()
        self.hidden[0](images())

    def state(self) -> dict[str, object]:
        generators = self.torch_generator.get_state().tolist(), self.python_generator.getstate()
        plain = {name: copy.deepcopy(vars(self)[name]) for name in ("default", "counter", "nested", "space", "bytes")}
        return {
            **plain,
            "deque": list(self.deque),
            "order": list(self.ordered),
            "arrays": [self.tensor.tolist(), self.array.tolist(), *[entry.tolist() for entry in self.listed]],
            "generators": (
                generators,
                self.numpy_generator.bit_generator.state,
                pickle.dumps(self.legacy_generator.get_state()),
            ),
            "hidden": {name: tensor.tolist() for name, tensor in self.hidden[0].state_dict().items()},
            "attributes": [sorted(vars(module)) for module in self.modules()],
        }


def test_attributes_of_every_kind_are_put_back() -> None:
    model = KeepsState()
    objects = {name: id(value) for name, value in vars(model).items()}
    for _ in range(3):
        before = model.state()
        with guard(model):
            model(images())
            during = model.state()
            assert all(during[name] != before[name] for name in before), "the forward left something alone"
        assert model.state() == before
    assert {name: id(value) for name, value in vars(model).items()} == objects


def test_a_container_that_refers_to_itself_is_kept() -> None:
    model = Net()
    model.ring = [model]
    model.ring.append(model.ring)
    with guard(model):
        model.ring.pop()
    assert model.ring[0] is model
    assert model.ring[1] is model.ring


# 2. Random states


class Draws(Net):
    def act(self) -> None:
        torch.rand(3)
        random.random()
        np.random.normal()


def states() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), pickle.dumps(np.random.get_state())


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside another thread"])
def test_what_a_model_draws_is_put_back(others: bool) -> None:
    model = Draws()
    over = threading.Event()
    if others:  # a state does not tell who drew, so the guard has to see the model do it
        threading.Thread(target=over.wait, args=(60,)).start()
    try:
        np.random.seed(0)
        np.random.normal()  # the second number of a pair waits in the state
        for _ in range(3):
            before = states()
            with guard(model):
                model(images())
                assert all(now != then for now, then in zip(states(), before, strict=True))
            assert states() == before
    finally:
        over.set()


def test_what_other_threads_draw_is_not_rewound() -> None:
    """One thread draws while another one is inside an explanation, at the first call of its model and later."""
    model = Net()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = [(torch.rand(()).item(), random.random(), np.random.rand()) for _ in range(6)]
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    inside, drawn = threading.Barrier(2), threading.Barrier(2)
    model.conv.register_forward_hook(lambda *_: (inside.wait(30), drawn.wait(30)))

    def explain() -> None:
        for _ in range(3):
            with guard(model):
                model.fc(torch.ones(1, 4))
                nn.Sequential(model.conv)(images())

    thread = threading.Thread(target=explain)
    thread.start()
    found = []
    for _ in range(3):
        inside.wait(30)
        found.append((torch.rand(()).item(), random.random(), np.random.rand()))
        drawn.wait(30)
        found.append((torch.rand(()).item(), random.random(), np.random.rand()))
    thread.join()
    assert found == expected


def test_models_that_draw_in_two_threads_leave_the_states() -> None:
    models = [Draws(), Draws()]
    before = states()

    def explain(model: nn.Module) -> None:
        for _ in range(10):
            with guard(model):
                model(images())

    threads = [threading.Thread(target=explain, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states() == before


@pytest.mark.parametrize("begun", [False, True])
def test_the_states_of_the_devices_that_a_model_is_on_are_kept_once_cuda_runs(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    weights = [SimpleNamespace(is_cuda=True, device=device) for device in (first, second, second)]
    model = SimpleNamespace(parameters=lambda: [*weights, torch.ones(1)])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: begun)
    assert _devices(model) == ({first, second} if begun else set())


# 5. torch.compile's stance, modes


def test_the_stance_is_put_back_by_the_last_of_overlapping_blocks() -> None:
    """The first to begin is the first to end: putting back what each found would leave the other's stance."""
    first, second = guard(Net()), seewhy.capture(Net(), "conv")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert stance() == "force_eager", "the second block still runs"
    second.__exit__(None, None, None)
    assert stance() == "default"


def test_a_stance_that_somebody_else_sets_meanwhile_stays() -> None:
    with guard(Net()):
        other = torch.compiler.set_stance("eager_on_recompile")
    try:
        assert stance() == "eager_on_recompile"
    finally:
        torch.compiler.set_stance("default")
    del other


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_autograds_switches_are_put_back(mode: type) -> None:
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with guard(Net()):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


# 10. Threads


def test_a_guard_inside_another_one_leaves_the_keeping_to_it() -> None:
    model = KeepsState()
    before = model.state()
    with guard(model):
        with guard(model.conv), guard(model):
            model.train()
            model(images())
        with guard(model):
            assert not model.fc.training
    assert model.state() == before
    assert model.training


def test_models_that_share_a_module_take_turns_and_others_do_not() -> None:
    first, second, third = Net(), Net(), Net()
    second.conv = first.conv
    order = []
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with guard(first):
            inside.set()
            go_on.wait(30)
            order.append("first")

    def wait() -> None:
        with guard(second):
            order.append("second")

    for model in (first, second, third):  # the first calls take turns for the sake of the random states
        with guard(model):
            model(images())
    threads = [threading.Thread(target=hold), threading.Thread(target=wait)]
    threads[0].start()
    inside.wait(30)
    threads[1].start()
    with guard(third):
        order.append("third")
    while not turns._waits:
        time.sleep(0.001)
    go_on.set()
    for thread in threads:
        thread.join()
    assert order == ["third", "first", "second"]
    assert not turns._turns
    assert not turns._waits


def test_two_threads_that_wait_for_each_other_get_an_error() -> None:
    models = [Net(), Net()]
    for model in models:
        with guard(model):
            model(images())
    both = threading.Barrier(2)
    ended: list[str] = []

    def work(mine: nn.Module, other: nn.Module) -> None:
        try:
            with guard(mine):
                both.wait(30)
                with guard(other):
                    ended.append("done")
        except ConcurrencyError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in (models, models[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 2
    assert "done" in ended, "one of them goes on"
    assert "wait for each other's models" in min(ended, key=len) + max(ended, key=len)
    assert not turns._turns


def test_training_in_another_thread_is_an_error() -> None:
    model = Net()

    def train() -> None:
        model(images()).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()

    def explain_meanwhile() -> None:
        with guard(model):
            model(images())
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()

    with pytest.raises(ConcurrencyError, match="weights changed while the model was explained"):
        explain_meanwhile()


def test_the_callers_own_error_comes_before_that() -> None:
    model = Net()

    def write_and_fail() -> None:
        with guard(model):
            model(images())
            thread = threading.Thread(target=lambda: model.fc.bias.detach().add_(1))
            thread.start()
            thread.join()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write_and_fail()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_a_thread_explains_finds_the_model_as_it_was() -> None:
    model = Net()
    model.train()
    before = fingerprint(model)
    inside, go_on = threading.Event(), threading.Event()

    def explain() -> None:
        with guard(model), seewhy.capture(model, "conv"):
            inside.set()
            go_on.wait(60)

    thread = threading.Thread(target=explain)
    thread.start()
    inside.wait(30)
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        same = fingerprint(model) == before and stance() == "default"
        with guard(model):
            quiet = not model.training
        os._exit(0 if same and quiet and fingerprint(model) == before else 3)
    ended, status = 0, 0
    until = time.monotonic() + 30
    while not ended and time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    go_on.set()
    thread.join()
    assert ended, "the child hangs"
    assert os.waitstatus_to_exitcode(status) == 0
    assert fingerprint(model) == before


# Ctrl-C


def interrupt(*arguments: str) -> dict[str, list[str]]:
    """What `tests.engine.interrupting` found left over. In a process of its own: pytest's checks of types are places
    for signals too, thousands of them."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.engine.interrupting", *arguments], capture_output=True, text=True, timeout=600
    )
    assert found.returncode == 0, found.stderr
    assert "Exception ignored" not in found.stderr, found.stderr
    report = json.loads(found.stdout)
    assert report["interruptions"] > 1000
    return report["left_over"]


def test_ctrl_c_at_every_place_in_entering_and_leaving_leaves_nothing() -> None:
    assert interrupt() == {}


@pytest.mark.slow
def test_ctrl_c_by_signal_at_random_instants_leaves_nothing() -> None:
    assert interrupt("3000") == {}


def test_an_exception_in_undoing_does_not_stop_the_rest() -> None:
    done: list[int] = []
    tries = iter([KeyboardInterrupt, None])

    def once_interrupted() -> None:
        if (error := next(tries)) is not None:
            raise error
        done.append(2)

    def broken() -> None:
        raise ValueError("always")

    def block() -> None:
        with undoing() as undo:
            undo.later(done.append, 1)
            undo.later(once_interrupted)
            undo.later(broken)
            undo.later(done.append, 4)

    with pytest.raises(KeyboardInterrupt) as caught:  # Ctrl-C comes through before an error
        block()
    assert isinstance(caught.value.__context__, ValueError)
    assert done == [4, 2, 1]
