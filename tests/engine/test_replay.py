"""Replay gives what the whole model gives when a layer's output is changed, and runs only what follows the layer."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import seewhy
from seewhy.engine.guard import guard
from seewhy.engine.replay import remember, replayer
from seewhy.engine.tape import record
from seewhy.errors import MethodError, ReplayWarning
from seewhy.inputs.call import Inputs
from tests.contracts.zoo import CASES, CLASSES

ZOO = {case.name: case for case in CASES}


class UNet(nn.Module):
    """Two skips, one of them by concatenation with what is in-place activated later; scores are means per class."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, image):
        first = F.relu(self.down1(image * 2 - 1))
        second = self.down2(first)
        middle = self.middle(second)
        middle = middle + second
        joined = torch.cat([first, self.up(middle)], 1)
        return self.head(F.relu(joined, inplace=True)).mean((-2, -1))


class Tokens(nn.Module):
    """A transformer block on a class token and 4 x 4 patches; everything but the block's parts is functional."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.mix, self.mlp = nn.Linear(17, 17), nn.Linear(12, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, image):
        patches = self.patches(image).flatten(2).mT
        x = torch.cat([self.token.expand(len(image), -1, -1), patches], 1)
        x = x + self.mix(self.norm1(x).mT).mT
        x = x + F.gelu(self.mlp(self.norm2(x)))
        return self.head(x.mean(1))


class Writes(nn.Module):
    """Writes to its input, to what earlier modules returned, and to the layer's output."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, image):
        if self.how == "input":
            image.mul_(0.5)
        x = self.first(image)
        if self.how == "add":
            x.add_(0.25)
        if self.how == "fill":  # in silence, also on a view of one row; what was there is read before
            before = x.mean((-2, -1), keepdim=True)
            x[:, 0] = 0.5
            x = x + before
        y = self.second(x)
        y.relu_()
        if self.how == "add later":
            x += y
            y = x
        return self.head((x + y).mean((-2, -1)))


def both(model, inputs, layer, *, number=0, image=1):
    """Outputs for three changes of one image: by replay, and by running all of the model with a hook that counts."""
    module = model.get_submodule(layer)
    call = Inputs.of(inputs, model)
    with guard(model):
        with remember(model, {layer: module}) as memories:
            tape = record(lambda: call.with_rows(torch.clone).run(model), {layer: module})
        label = list(tape.activations)[number]
        kept, outputs = tape.activations[label].detach(), tape.outputs.detach()
        assert list(memories()) == list(tape.activations)
        edits = torch.stack([kept[image] * 0, kept[image].flip(0), kept[image] + 0.3])
        run, _ = replayer(
            memories()[label],
            lambda lend: call.with_rows(lend).run(model),
            kept,
            lambda _, found, __: found,
            outputs,
            torch.tensor(2e-5),
        )
        with torch.no_grad():
            first, found = run(image, edits.clone()), run(image, edits.clone())
            assert torch.equal(first, found), "a replay must not change what is remembered"
            single = run(image, edits[2:].clone())
        calls = iter(range(100))
        handle = module.register_forward_hook(lambda *_: edits.clone() if next(calls) == number else None)
        with torch.no_grad():
            expected = model(inputs[image : image + 1].repeat(3, *[1] * (inputs.ndim - 1)))
        handle.remove()
    # 1e-5: the same operations on other batch sizes, in float32 at scores of about 1
    torch.testing.assert_close(single, expected[2:], rtol=1e-5, atol=1e-5)
    return found, expected


MIDDLES = [
    ("resnet", "conv1"),
    ("resnet", "layer2"),
    ("resnet", "layer2.0.conv1"),  # the downsampled identity is computed after it
    ("resnet", "layer2.0.bn2"),  # out += identity, then an in-place ReLU
    ("resnet", "layer4.0"),
    ("resnet", "layer4.0.bn1"),
    ("densenet", "features.denseblock2.denselayer1"),
    ("densenet", "features"),
    ("mobilenet", "features.17.conv.0.0"),
    ("vgg_like", "features.3"),
    ("convnext", "features.3.0.block.3"),
    ("volumes", "1"),
]


@pytest.mark.parametrize(("name", "layer"), MIDDLES)
@pytest.mark.filterwarnings("error::seewhy.errors.ReplayWarning")
def test_replay_is_the_whole_model_with_the_layer_changed(name, layer):
    found, expected = both(ZOO[name].model(), ZOO[name].inputs(), layer)
    assert (expected[0] - expected[1]).abs().max() > 1e-3, "a change that changes nothing proves nothing"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "layer"),
    [(UNet, "down1"), (UNet, "down2"), (UNet, "middle"), (UNet, "up"), (Tokens, "norm1"), (Tokens, "mlp")],
)
@pytest.mark.filterwarnings("error::seewhy.errors.ReplayWarning")
def test_skips_and_tokens(build, layer):
    torch.manual_seed(0)
    found, expected = both(build().eval(), torch.randn(2, 3, 32, 32), layer)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("layer", ["shared", "relu"])
@pytest.mark.filterwarnings("error::seewhy.errors.ReplayWarning")
def test_each_call_of_a_layer_called_twice(layer, number):
    found, expected = both(ZOO["called_twice"].model(), ZOO["called_twice"].inputs(), layer, number=number)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["nothing", "input", "add", "fill", "add later"])
@pytest.mark.filterwarnings("error::seewhy.errors.ReplayWarning")
def test_models_that_write_in_place_are_replayed_on_copies(how):
    torch.manual_seed(0)
    found, expected = both(Writes(how).eval(), torch.randn(2, 3, 8, 8), "second")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_callers_hook_that_changes_an_earlier_output_is_not_applied_twice():
    model = ZOO["resnet"].model()
    model.layer1.register_forward_hook(lambda _m, _a, output: output * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReplayWarning)
        found, expected = both(model, ZOO["resnet"].inputs(), "layer3")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class KeepsState(nn.Module):
    """The stem's forward leaves a tensor on the module, which the end of the model reads."""

    def __init__(self):
        super().__init__()
        self.stem = Stem()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, image):
        x = self.conv(self.stem(image))
        return self.head((x + self.stem.early).mean((-2, -1)))


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image):
        self.early = self.conv(image)
        return self.early.relu()


def test_replay_steps_aside_with_a_warning_and_stays_right():
    torch.manual_seed(0)
    with pytest.warns(ReplayWarning, match=r"Conv2d cannot be replayed .*: the whole model runs"):
        found, expected = both(KeepsState().eval(), torch.randn(3, 3, 8, 8), "conv")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def count_calls(module, rows):
    return module.register_forward_hook(lambda _m, _a, output: rows.append(len(output)))


def test_what_ran_before_the_layer_does_not_run_again_and_memory_is_bounded_by_batch_size():
    case = ZOO["resnet"]
    model = case.model()
    kept, early, late = [], [], []
    handle = model.layer4.register_forward_hook(lambda _m, _a, output: kept.append(output.detach()))
    model(case.inputs(3))
    handle.remove()
    changes = int((kept[0] != 0).flatten(2).any(-1).sum())
    count_calls(model.layer1[0].conv1, early)
    count_calls(model.avgpool, late)
    seewhy.explain(model, case.inputs(3), method="ablation_cam", layers="layer4", batch_size=5)
    assert early == [3, 3, 3]  # to record the named layer, to see how it lies, and the images in another order
    assert (late[:2], late[-1]) == ([3, 3], 3)
    assert max(late[2:]) == 5
    # two trials of four rows for each image, then every channel that is not all zero
    assert sum(late[2:-1]) == 3 * 8 + changes


def test_a_token_layer_is_changed_in_its_own_layout_and_the_class_token_is_kept():
    torch.manual_seed(0)
    model, images = Tokens().eval(), torch.randn(2, 3, 32, 32)

    def fold(tokens):
        return tokens[:, 1:].mT.unflatten(2, (4, 4))

    found = seewhy.explain(model, images, 3, method="ablation_cam", layers="mlp", grid=fold)
    kept = []
    handle = model.mlp.register_forward_hook(lambda _m, _a, output: kept.append(output.detach()))
    scores = model(images)[:, 3].detach()
    handle.remove()
    expected = torch.zeros(2, 4, 4)
    for channel in range(12):
        changed = kept[0].clone()
        changed[:, 1:, channel] = 0  # the class token stays
        handle = model.mlp.register_forward_hook(lambda *_, changed=changed: changed)
        lost = (scores - model(images)[:, 3].detach()) / scores.abs()
        handle.remove()
        expected += lost[:, None, None] * fold(kept[0])[:, channel]
    torch.testing.assert_close(found.maps["mlp"], expected, rtol=1e-4, atol=1e-5)  # twelve float32 differences


def test_a_grid_that_mixes_values_is_refused():
    model, images = ZOO["resnet"].model(), ZOO["resnet"].inputs()
    with pytest.raises(MethodError, match="mixes values"):
        seewhy.explain(model, images, 1, method="ablation_cam", layers="layer4", grid=lambda x: x + x.flip(1))


def test_another_thread_runs_the_model_itself():
    case = ZOO["resnet"]
    model, inputs = case.model(), case.inputs()
    other = inputs + 1
    expected = model(other).detach()
    main = threading.get_ident()
    found = []

    def look(*_):
        if threading.get_ident() == main and len(found) < 3:
            with ThreadPoolExecutor(1) as pool:
                found.append(pool.submit(model, other).result(30).detach())

    model.fc.register_forward_pre_hook(look)
    seewhy.explain(model, inputs, 1, method="ablation_cam", layers="layer4")
    assert len(found) == 3
    for output in found:
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_forwards_are_put_back_when_a_replay_is_interrupted(error):
    case = ZOO["resnet"]
    model, calls = case.model(), iter(range(100))
    own = model.layer2.forward
    model.layer2.forward = own  # as accelerate does: a forward in the instance
    failure = error("in the middle")

    def fail(*_):
        if next(calls) >= 4:  # the first forward, the trial, then some
            raise failure

    model.fc.register_forward_hook(fail)
    with pytest.raises(error) as caught:
        seewhy.explain(model, case.inputs(), 1, method="ablation_cam", layers="layer4", batch_size=8)
    assert caught.value is failure
    assert [name for name, module in model.named_modules() if "forward" in vars(module)] == ["layer2"]
    assert model.layer2.forward is own


@pytest.mark.slow
def test_nothing_is_remembered_afterwards():
    case = ZOO["resnet"]
    model, alive = case.model(), []
    for module in (model.layer1, model.layer3, model.layer4, model.avgpool):
        module.register_forward_hook(lambda _m, _a, output: alive.append(weakref.ref(output)))
    gc.collect()
    gc.disable()
    try:
        explanation = seewhy.explain(model, case.inputs(), 1, method="ablation_cam", layers="layer4")
        assert len(alive) > 8
        assert not [reference for reference in alive if reference() is not None]
        assert explanation.maps
    finally:
        gc.enable()
