"""The ten promises (docs/design), for every mechanism on every model of the zoo."""

from __future__ import annotations

import functools
import gc
import json
import random
import re
import subprocess
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import GradientError, MapWarning, MethodError, TargetError
from seewhy.evidence._provider import provider
from tests.contracts.zoo import CASES, CHEAP, CLASSES, Case, LeftInTrainMode

# d_rise explains boxes, and tam words, which these models do not give: tests/methods/test_d_rise.py, tests/language
METHODS = [name for name in seewhy.methods.available() if name not in ("d_rise", "tam")]
REPLAYED = ("replay", "neutral_replay")
BY_NAME = {case.name: case for case in CASES}

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def explain(case: Case, method: str, model: nn.Module, *args, **options) -> seewhy.Explanation:
    """`seewhy.explain`, at a pooled layer for the method that asks for one; a dull map is no concern here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        return seewhy.explain(model, *args, method=method, **CHEAP.get(method, {}), **options)


def last(explanation: seewhy.Explanation) -> Tensor:
    """The map of the deepest layer that the method looks at, or that of the input."""
    return list(explanation.maps.values())[-1]


def mechanism(method: str) -> tuple[object, ...]:
    """What a method asks of the engine. How the promises are kept depends on this, not on the formula."""
    found = seewhy.methods.get(method)
    providers = [provider(need) for need in found.needs if need != "generator"]
    asked = {(one.give.__module__, one.start, one.watch, one.differentiable, one.keeps_graph) for one in providers}
    return frozenset(asked), any(one.leaves for one in providers), found.staged, found.ask is None


FIRST_OF_MECHANISM = {
    method for number, method in enumerate(METHODS) if mechanism(method) not in map(mechanism, METHODS[:number])
}
every_method = pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in FIRST_OF_MECHANISM else [pytest.mark.all]) for name in METHODS]
)
EVERY_FORMULA = ("small_cnn", "volumes")  # the others of a mechanism: enough to tell a formula's own mistakes
CORE = ("resnet", "class_token")  # in `make test`; the others in `make test-all`


DEEP = ("resnet", "vgg_like", "mobilenet")


def applies(case: Case, method: str) -> bool:
    if method == "cam":
        return case.averaged
    found = seewhy.methods.get(method)
    if case.name == "tokens_first" and {*REPLAYED, "layer_attention_gradients", "token_scores"} & set(found.needs):
        return False
    if found.attends and not case.tokens:
        return False
    if method == "diff_cam" and case.name in DEEP:  # of random weights its difference there is rounding alone
        return False
    return method in FIRST_OF_MECHANISM or case.name in (("class_token",) if found.attends else EVERY_FORMULA)


def home(method: str) -> Case:
    """A case that the method applies to."""
    return BY_NAME["class_token" if seewhy.methods.get(method).attends else "resnet"]


PAIRS = [
    pytest.param(case, method, id=f"{case.name}-{method}", marks=[] if case.name in CORE else [pytest.mark.all])
    for case in CASES
    for method in METHODS
    if applies(case, method)
]
every_pair = pytest.mark.parametrize(("case", "method"), PAIRS)


@functools.cache
def baseline(case: Case, method: str) -> seewhy.Explanation:
    """What a plain call gives, once for all promises that compare with it."""
    return explain(case, method, case.model(), case.inputs())


def fingerprint(model: nn.Module) -> dict[str, object]:
    """All that promise 1 names, by value where it has one and by identity where that could be exchanged."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
        "identities": {name: id(tensor) for name, tensor in tensors.items()},
        "requires_grad": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "grads": {name: None if tensor.grad is None else tensor.grad.clone() for name, tensor in tensors.items()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: [len(value) for key, value in vars(module).items() if key.endswith("_hooks")]
            for name, module in model.named_modules()
        },
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
    }


def assert_same(before: object, after: object) -> None:
    """Equal to the last bit, in whatever nesting of dicts."""
    if isinstance(before, dict) and isinstance(after, dict):
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert_same(value, after[key])
    elif isinstance(before, Tensor):
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    else:
        assert before == after


def with_history(model: nn.Module) -> nn.Module:
    """As in the middle of training: some gradients accumulated, one parameter frozen, one submodule in another mode."""
    for number, parameter in enumerate(model.parameters()):
        if number % 2:
            parameter.grad = torch.full_like(parameter, 0.5)
    next(model.parameters()).requires_grad_(False)
    last = list(model.modules())[-1]
    last.train(not last.training)
    return model


# 1. The model is as it was


@pytest.mark.few(14)
@every_pair
def test_model_inputs_and_random_state_are_as_they_were_and_the_map_is_that_of_eval_mode(
    case: Case, method: str
) -> None:
    """Promises 1, 2 and 3, for a model in the middle of training."""
    model, inputs = with_history(case.model().train()), case.inputs().requires_grad_()
    before, copy = fingerprint(model), inputs.detach().clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    found = explain(case, method, model, inputs)
    assert_same(before, fingerprint(model))
    assert torch.equal(inputs, copy)
    assert inputs.grad is None
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert_same(baseline(case, method).maps, found.maps)
    assert_same(baseline(case, method).scores, found.scores)


class Interrupted(BaseException):
    """Like KeyboardInterrupt: not an Exception."""


@pytest.mark.few(14)
@pytest.mark.parametrize("error", [RuntimeError, IndexError, KeyboardInterrupt, Interrupted])
@every_case
def test_model_is_as_it_was_when_the_forward_raises(case: Case, error: type[BaseException]) -> None:
    """Promise 7 too: the very exception comes through."""
    model = with_history(case.model())
    failure = error("in the middle")

    def fail(*_: object) -> None:
        raise failure

    last = list(model.modules())[-1]
    last.register_forward_hook(fail)
    before = fingerprint(model)
    with pytest.raises(error) as caught:
        seewhy.explain(model, case.inputs())
    assert caught.value is failure
    assert_same(before, fingerprint(model))


@every_method
def test_model_is_as_it_was_when_the_target_raises(method: str) -> None:
    case = home(method)
    model = with_history(case.model())
    before = fingerprint(model)
    failure = IndexError("the caller's own")

    def target(_: Tensor) -> Tensor:
        raise failure

    with pytest.raises(IndexError) as caught:
        seewhy.explain(model, case.inputs(), target, method=method)
    assert caught.value is failure
    assert_same(before, fingerprint(model))


@pytest.mark.parametrize("method", [name for name in METHODS if seewhy.methods.get(name).family == "perturbation"])
def test_model_is_as_it_was_when_a_loop_is_interrupted(method: str) -> None:
    """Ctrl-C while the model is asked again, some runs after the first forward."""
    case = BY_NAME["resnet"]
    model = with_history(case.model())
    runs = []

    def interrupt(*_: object) -> None:
        runs.append(None)
        if len(runs) == 3:
            raise KeyboardInterrupt

    model.fc.register_forward_hook(interrupt)
    before = fingerprint(model)
    with pytest.raises(KeyboardInterrupt):
        explain(case, method, model, case.inputs(), batch_size=4)
    assert_same(before, fingerprint(model))


class KeepsThings(nn.Module):
    """A forward that writes to the module: attributes old and new, a list, a dict, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, CLASSES)
        self.seen = []
        self.cache = {"a": 1}
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv(image)
        self.last = features
        self.seen.append(features)
        self.cache["features"] = features
        self.calls += 1
        return self.head(features.mean((-2, -1)))


def test_what_a_forward_stores_on_its_modules_is_undone() -> None:
    model = KeepsThings()
    seewhy.explain(model, torch.randn(2, 3, 16, 16))
    assert model.seen == []
    assert model.cache == {"a": 1}
    assert model.calls == 0
    assert not hasattr(model, "last")


def test_a_training_step_around_an_explanation_is_bit_identical() -> None:
    """Also under autocast, whose cache would otherwise keep a weight's cast without its graph."""

    def train(explaining: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = LeftInTrainMode()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        images = torch.randn(4, 3, 32, 32)
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                if explaining:
                    seewhy.explain(model, images, 0)
                loss = model(images).float().square().mean()
                if explaining:
                    seewhy.explain(model, images, 0)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return model.state_dict()

    assert_same(train(explaining=False), train(explaining=True))


# 2. Inputs and random state


def test_a_model_that_writes_to_its_input_and_draws_leaves_both_untouched() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)

        def forward(self, image: Tensor) -> Tensor:
            image.sub_(0.5)
            noise = torch.rand(()) + random.random() + np.random.rand()
            return (self.conv(image) * noise).mean((-2, -1))

    model, inputs = Noisy(), torch.ones(1, 3, 8, 8)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    seewhy.explain(model, inputs)
    assert torch.equal(inputs, torch.ones(1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


@pytest.mark.few(9)
@every_method
def test_a_generator_decides_what_is_drawn(method: str) -> None:
    case = (
        home(method) if method == "cam" or seewhy.methods.get(method).attends else BY_NAME["vgg_like"]
    )  # behind resnet's last layer noise changes no gradient
    model, inputs = case.model(), case.inputs()

    def drawn(seed: int) -> Tensor:
        return last(explain(case, method, model, inputs, generator=torch.Generator().manual_seed(seed)))

    assert torch.equal(drawn(1), drawn(1))
    draws = bool({"generator", "noisy_gradients"} & set(seewhy.methods.get(method).needs))
    assert torch.equal(drawn(1), drawn(2)) is not draws


# 4. Batches


@pytest.mark.few(12)
@every_pair
def test_each_image_of_a_batch_gets_its_own_map(case: Case, method: str) -> None:
    """Need 16: true batches."""
    together, inputs = baseline(case, method), case.inputs()
    asks = {"score", *REPLAYED} & set(seewhy.methods.get(method).needs)
    for number in range(len(inputs)):
        alone = explain(case, method, case.model(), inputs[number : number + 1])
        assert alone.layers == together.layers
        assert case.layer in alone.layers or alone.layers in (("input",), ("attention",))
        for name, grid in alone.maps.items():
            scale = float(grid.abs().max())
            # what is told from differences of scores is known to the rounding of a score, however small it is
            rounding = 2e-6 * float(alone.scores.abs()) if asks else 0
            torch.testing.assert_close(together.maps[name][number], grid[0], rtol=1e-4, atol=1e-5 * scale + rounding)


@pytest.mark.few(5)
@every_method
def test_several_targets_are_each_like_one(method: str) -> None:
    case = home(method)
    model, inputs = case.model(), case.inputs()
    classes = torch.tensor([[1, 5, 2], [7, 0, 2]])
    generator = torch.Generator()
    together = last(explain(case, method, model, inputs, classes, generator=generator.manual_seed(0)))
    for number in range(3):
        alone = last(explain(case, method, model, inputs, classes[:, number], generator=generator.manual_seed(0)))
        torch.testing.assert_close(together[:, number], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [[1], [1, 2, 3], torch.tensor([1, 2, 3]), torch.zeros(1, 2, dtype=torch.long)])
def test_a_wrong_number_of_targets_is_an_error(target: object) -> None:
    case = BY_NAME["resnet"]
    with pytest.raises(TargetError, match="does not match the batch"):
        seewhy.explain(case.model(), case.inputs(2), target)


# 5. Whatever the caller's circumstances


@pytest.mark.few(10)
@every_pair
def test_frozen_no_grad_and_inference_mode_change_nothing(case: Case, method: str) -> None:
    """Need 2: gradients in spite of frozen parameters, no_grad and inference_mode."""
    model, inputs = case.model().requires_grad_(False), case.inputs()
    with torch.no_grad():
        assert_same(baseline(case, method).maps, explain(case, method, model, inputs).maps)
    with torch.inference_mode():
        found = explain(case, method, model.requires_grad_(True), inputs.clone()).maps
    assert_same(baseline(case, method).maps, found)


@pytest.mark.few(4)
@every_case
def test_a_model_made_under_inference_mode_can_be_explained(case: Case) -> None:
    expected = explain(case, "grad_cam", case.model(), case.inputs()).maps
    with torch.inference_mode():
        model = case.model()
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    assert_same(expected, explain(case, "grad_cam", model, case.inputs()).maps)
    assert before == {name: id(parameter) for name, parameter in model.named_parameters()}


# what decides by sign, threshold or rank decides otherwise here and there after rounding, in deep random nets too often
DECIDE = ("fem", "finer_cam", "guided_backprop", "guided_grad_cam")


def survives_rounding(case: Case, method: str) -> bool:
    """Whether a map of bf16 weights can be expected to look like that of float32 weights."""
    return not (case.name in DEEP and method in DECIDE)


@pytest.mark.few(8)
@pytest.mark.parametrize(
    ("case", "method"),
    [pair for pair in PAIRS if pair.values[1] in FIRST_OF_MECHANISM and survives_rounding(*pair.values)],
)
def test_bf16_weights_give_float32_maps_like_float32_weights(case: Case, method: str) -> None:
    """Need 10: mixed precision. bf16 has 8 bits of mantissa; what remains over a network is a correlation, not digits.

    Of methods that tell scores apart less remains: a difference within two roundings of a score is none.
    """
    inputs = case.inputs()
    expected = explain(case, method, case.model(), inputs, 1)
    found = explain(case, method, case.model().bfloat16(), inputs.bfloat16(), 1).maps
    asks = {"score", *REPLAYED} & set(seewhy.methods.get(method).needs)
    resolved = 2 * 2**-8 * float(expected.outputs.abs().max()) if asks else 0
    for name, grid in expected.maps.items():
        assert found[name].dtype == torch.float32
        similarity = torch.cosine_similarity(found[name].flatten(), grid.flatten(), dim=0)
        error = (found[name] - grid).square().mean().sqrt()
        assert similarity > 0.97 or error <= resolved, f"{name}: {similarity:.4f}, {error:.1e} off"


@pytest.fixture
def ddp(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield nn.parallel.DistributedDataParallel
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("case", [BY_NAME["resnet"], BY_NAME["called_twice"]], ids=lambda case: case.name)
def test_wrapped_models_are_explained_through_the_module_inside(case: Case, ddp) -> None:
    """Need 10, and a wrong map elsewhere (part 2, 25): DataParallel, DDP, and hooks of a compiled model."""
    inputs = case.inputs()
    expected = explain(case, "grad_cam", case.model(), inputs)
    for wrap in (nn.DataParallel, ddp, lambda model: torch.compile(model, backend="eager")):
        model = wrap(case.model())
        found = explain(case, "grad_cam", model, inputs)
        assert found.layers == expected.layers
        torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-6)


def test_a_compiled_part_is_run_eagerly_and_stays_compiled() -> None:
    """Need 10, and a wrong map elsewhere (part 2, 25): hooks on what is compiled already are not skipped."""
    case = BY_NAME["resnet"]
    inputs = case.inputs()
    expected = explain(case, "grad_cam", case.model(), inputs, layers="layer3").maps
    model = case.model()
    model.layer4 = torch.compile(model.layer4, backend="eager")
    model.layer3.compile(backend="eager")
    model(inputs)
    compiled = model.layer3._compiled_call_impl
    torch.testing.assert_close(explain(case, "grad_cam", model, inputs, layers="layer3").maps, expected)
    assert model.layer3._compiled_call_impl is compiled


class FrozenBackbone(nn.Module):
    """The backbone runs under the model's own no_grad, as transfer learning code has it."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen
        self.backbone = BY_NAME["left_in_train_mode"].model().body
        self.head = nn.Linear(16, CLASSES)
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.frozen):
            features = self.backbone(image)
        return self.head(features.mean((-2, -1)))


def test_a_backbone_under_the_models_own_no_grad_is_explained() -> None:
    """Need 2, for a backbone that the model itself freezes."""
    inputs = torch.randn(2, 3, 32, 32)
    maps = [seewhy.explain(FrozenBackbone(frozen), inputs, 1, layers="backbone.3").maps for frozen in (False, True)]
    assert maps[0]["backbone.3"].abs().max() > 0
    assert_same(maps[0], maps[1])
    assert torch.is_grad_enabled()


# 6. Activations are what the layer returned


TRAPS = [
    ("resnet", "layer4.0.bn2"),  # out += identity, then an in-place ReLU
    ("resnet", "bn1"),
    ("densenet", "features"),  # F.relu(features, inplace=True)
    ("vgg_like", "features.6"),  # a convolution, then nn.ReLU(inplace=True)
    ("mobilenet", "features.17"),
    ("called_twice", "shared"),
]


@pytest.mark.parametrize(("name", "layer"), TRAPS)
def test_activations_are_what_the_layer_returned(name: str, layer: str) -> None:
    """Need 15: in-place operations after the layer.

    HiResCAM of a target that sums the output has maps that a float64 hook with a clone must reproduce.
    """
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs()
    returned = []
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda _m, _a, output: returned.append(output.detach().clone()))
    model(inputs)
    handle.remove()

    kept = []
    from seewhy.engine.guard import guard
    from seewhy.engine.tape import record

    with guard(model):
        kept = list(record(lambda: model(inputs.clone()), {layer: module}).activations.values())
    assert len(kept) == len(returned)
    for found, expected in zip(kept, returned, strict=True):
        assert torch.equal(found.detach(), expected)
    if len(returned) == 1:
        assert (returned[0] < 0).any(), "without a negative value the trap is not one"


def test_an_identity_whose_input_is_overwritten_stays_one_tensor_with_it() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, image: Tensor) -> Tensor:
            x = image * 1.0
            y = self.same(x)
            x.zero_()
            return y.mean((-2, -1))

    image = torch.rand(1, 2, 4, 4) + 1
    with pytest.warns(MapWarning, match="zero everywhere"):
        found = seewhy.explain(Overwrites(), image, 0, layers="same", method="hires_cam")
    assert torch.equal(found.outputs, Overwrites()(image))  # what the layer returned is its input, and so zeros
    assert not found.maps["same"].any()


# 8. Nothing is kept


@pytest.mark.few(5)
@every_method
def test_nothing_outlives_the_explanation(method: str) -> None:
    """By reference count alone: no cycle waits for the collector."""
    case = home(method)
    model, inputs = case.model(), case.inputs()
    alive = []

    def watch(_: nn.Module, __: object, output: Tensor) -> None:
        alive.append(weakref.ref(output))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.LayerNorm | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(watch)
    explainer = seewhy.Explainer(model, method, **CHEAP.get(method, {}))
    gc.collect()
    gc.disable()
    try:
        explanation = explainer(inputs)
        assert alive
        assert not [reference for reference in alive if reference() is not None]
        gone = weakref.ref(last(explanation))
        outputs = weakref.ref(explanation.outputs)
        assert not explanation.outputs.requires_grad
        del explanation
        assert gone() is None
        assert outputs() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_calls() -> None:
    """In a process of its own: one kept input would be 96 KiB a call, 94 MiB in all."""
    code = """
import gc, json, resource, warnings
import seewhy
from tests.contracts.zoo import CASES
warnings.simplefilter("ignore")
case = next(case for case in CASES if case.name == "small_cnn")
model, inputs = case.model(), case.inputs(8)
for number in range(1200):
    seewhy.explain(model, inputs)
    if number == 199:
        before, objects = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(gc.get_objects())
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(gc.get_objects()) - objects]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    kilobytes, objects = json.loads(done.stdout)
    assert kilobytes < 16 * 1024  # the high-water mark of the allocator creeps by some 4 MiB; a leak of inputs is 94
    assert objects < 500


# 9. A map that could not mean anything


def test_no_gradient_anywhere_is_an_error() -> None:
    model = BY_NAME["resnet"].model()
    nn.init.zeros_(model.fc.weight)
    with pytest.raises(GradientError, match="zero at every layer"):
        seewhy.explain(model, torch.randn(1, 3, 64, 64), 0)


def test_a_score_cut_off_from_the_layer_is_an_error() -> None:
    case = BY_NAME["resnet"]
    with pytest.raises(GradientError, match=r"does not depend on the model.s output(.|\n)*detach"):
        seewhy.explain(case.model(), case.inputs(), lambda output: output.detach().sum(1), layers="layer4")


def test_an_all_zero_map_warns_and_says_which() -> None:
    """Need 13: a blank map is explained."""
    model = BY_NAME["resnet"].model()
    with torch.no_grad():
        model.fc.weight[3] = 0
    with pytest.warns(MapWarning, match="layer4 is zero everywhere for image 0, 1") as caught:
        explanation = seewhy.explain(model, torch.randn(2, 3, 64, 64), 3, layers="layer4")
    assert torch.equal(explanation.heatmap, torch.zeros(2, 64, 64))
    assert caught[0].filename == __file__, "the warning points at seewhy, not at the caller"


def test_a_map_with_nothing_positive_warns_and_keeps_its_sign() -> None:
    """Need 13: so is one without anything positive."""
    model = BY_NAME["resnet"].model()
    with torch.no_grad():
        model.fc.weight[3] = -1.0
    with pytest.warns(MapWarning, match="layer4 has nothing positive for image 0"):
        explanation = seewhy.explain(model, torch.randn(1, 3, 64, 64), 3)
    assert explanation.maps["layer4"].min() < 0
    assert torch.equal(explanation.heatmap, torch.zeros(1, 64, 64))


def test_a_map_that_is_not_finite_warns_for_that_image_only() -> None:
    case = BY_NAME["resnet"]
    inputs = case.inputs(3)
    inputs[1, 0, 0, 0] = float("inf")
    with pytest.warns(MapWarning, match="layer4 is not finite for image 1:"):
        seewhy.explain(case.model(), inputs, 3, layers="layer4", method="hires_cam")


# 10. Threads


@pytest.mark.parametrize("case", [BY_NAME["resnet"], BY_NAME["left_in_train_mode"]], ids=lambda case: case.name)
def test_threads_may_explain_one_model_at_once(case: Case) -> None:
    model = case.model()
    batches = [case.inputs() + number for number in range(8)]
    expected = [explain(case, "grad_cam", model, batch, number).maps for number, batch in enumerate(batches)]
    start = threading.Barrier(4)

    def work(number: int) -> dict[str, Tensor]:
        if number < 4:
            start.wait()
        return seewhy.explain(model, batches[number], number).maps

    before = fingerprint(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(work, range(8)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert_same(before, fingerprint(model))


def test_a_forward_in_another_thread_is_not_recorded() -> None:
    """While one thread is inside an explanation, another runs the model: its graph stays whole, its hooks silent."""
    case = BY_NAME["resnet"]
    model, inputs = case.model(), case.inputs()
    inside, done = threading.Event(), threading.Event()

    def pause(_: nn.Module, __: object, ___: Tensor) -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            done.wait(30)

    expected = model(inputs).detach()
    model.fc.register_forward_hook(pause)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(seewhy.explain, model, inputs, 1, layers="layer4")
        assert inside.wait(30)
        output = model(inputs)
        output.sum().backward()
        done.set()
        explanation = future.result(30)
    torch.testing.assert_close(output.detach(), expected)
    assert model.conv1.weight.grad is not None, "the tape cut the graph of another thread's forward"
    assert len(explanation.maps) == 1


# Where a method's premise does not hold


@pytest.mark.parametrize("case", [case for case in CASES if not case.averaged], ids=lambda case: case.name)
def test_cam_is_refused_without_a_global_average(case: Case) -> None:
    with pytest.raises(MethodError, match="global average"):
        seewhy.explain(case.model(), case.inputs(), method="cam")


@pytest.mark.few(12)
@pytest.mark.parametrize("method", [name for name in METHODS if seewhy.methods.get(name).attends])
@pytest.mark.parametrize("case", [case for case in CASES if not case.tokens], ids=lambda case: case.name)
def test_attention_is_refused_where_it_does_not_run_over_the_whole_image(case: Case, method: str) -> None:
    with pytest.raises(MethodError, match=r"look at all tokens(.|\n)*grad_cam") as caught:
        seewhy.explain(case.model(), case.inputs(), method=method)
    got = (
        r"attention of shapes \(12, 2, 4, 4\), \(48, 1, 4, 4\)" if case.name == "swin" else "a model without attention"
    )
    assert re.search(got, str(caught.value))


@pytest.mark.parametrize("method", ["le_grad", "clip_surgery"])
def test_what_needs_blocks_is_refused_where_these_are_no_modules(method: str) -> None:
    case = BY_NAME["tokens_first"]
    with pytest.raises(MethodError, match=r"blocks that are modules(.|\n)*attention_relevance"):
        seewhy.explain(case.model(), case.inputs(), method=method)


@pytest.mark.parametrize("method", [name for name in METHODS if {*REPLAYED} & set(seewhy.methods.get(name).needs)])
def test_replay_is_refused_where_the_images_do_not_come_first(method: str) -> None:
    case = BY_NAME["tokens_first"]
    with pytest.raises(MethodError, match=r"cannot be replayed(.|\n)*score_cam"):
        seewhy.explain(case.model(), case.inputs(), method=method)
