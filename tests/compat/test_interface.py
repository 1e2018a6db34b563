"""What people write against grad-cam: their own classes and targets, its attributes and module paths."""

from __future__ import annotations

import gc
import weakref
from collections import deque

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import GradientError, InputTypeError, LayerError, TargetError
from tests.compat.models import OURS, TARGETS, UPSTREAM, cam, cnn, images

both = pytest.mark.parametrize("package", [UPSTREAM, OURS], ids=["upstream", "ours"])


def own_class(package, kind):
    class Weights(package.base_cam.BaseCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            assert type(activations) is np.ndarray
            assert type(grads) is np.ndarray
            assert isinstance(target_layer, nn.ReLU)
            assert len(targets) == len(input_tensor)
            return np.maximum(grads, 0).max(axis=(2, 3))

    class Image(package.GradCAM):
        def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth):
            with torch.no_grad():
                scores = self.model(input_tensor).numpy()
            return (grads * activations**2).sum(1) * (1 + scores.max(1) ** 2)[:, None, None]

    class Curved(package.base_cam.BaseCAM):
        def __init__(self, model, target_layers):
            super().__init__(model, target_layers, compute_input_gradient=True, uses_gradients=True, detach=False)

        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            (product,) = torch.autograd.grad(grads, activations, activations, retain_graph=True)
            return (grads - product).detach().numpy().mean((2, 3))

    class OnInput(package.GradCAM):
        def __init__(self, model, target_layers):
            package.base_cam.BaseCAM.__init__(self, model, target_layers, compute_input_gradient=True)

        def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth):
            return np.abs(input_tensor.grad.numpy() * input_tensor.detach().numpy()).sum(1)

    class WithoutGradients(package.base_cam.BaseCAM):
        def __init__(self, model, target_layers):
            super().__init__(model, target_layers, uses_gradients=False)

        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            assert grads is None
            return activations.std(axis=(2, 3))

    class Largest(package.LayerCAM):
        def aggregate_multi_layers(self, cam_per_target_layer):
            return np.concatenate(cam_per_target_layer, axis=1).max(1)

    return locals()[kind]


@pytest.mark.parametrize("targets", [None, TARGETS], ids=["predicted", "targets"])
@pytest.mark.parametrize("call", [{}, {"aug_smooth": True}], ids=str)
@pytest.mark.parametrize("kind", ["Weights", "Image", "Curved", "OnInput", "WithoutGradients", "Largest"])
def test_a_class_of_ones_own_gives_the_same_under_both(kind, targets, call):
    def maps(package):
        model = cnn()
        layers = [model[4]] if kind == "Curved" else [model[2], model[6]]
        with own_class(package, kind)(model, layers) as made:
            return made(images(), targets, **call)

    expected = maps(UPSTREAM)
    assert expected.max() > 0.5
    np.testing.assert_allclose(maps(OURS), expected, atol=1e-4)


def test_eigen_smooth_of_a_class_of_ones_own():
    def maps(package, **options):
        model = cnn()
        return own_class(package, "Weights")(model, [model[4]], **options)(images(), TARGETS, eigen_smooth=True)

    np.testing.assert_allclose(maps(OURS, upstream_exact=True), maps(UPSTREAM), atol=1e-4)


WEIGHTS = ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "ScoreCAM", "AblationCAM", "ShapleyCAM"]
IMAGES = ["HiResCAM", "GradCAMElementWise", "LayerCAM", "EigenCAM", "EigenGradCAM", "SegEigenCAM", "KPCA_CAM", "FEM"]


def asking(package, kind, name, seen):
    """A class that changes what its parent, `package`'s class `name`, gives, and adds that to `seen`."""
    parent = getattr(package, name)

    class Strongest(parent):
        """The three largest weights alone, be they of channels that are zero everywhere."""

        def get_cam_weights(self, *args):
            weights = super().get_cam_weights(*args)
            assert type(weights) is np.ndarray
            seen.append(weights)
            return np.where(weights >= np.sort(weights, 1)[:, -3:-2], weights, 0)

    class Squared(parent):
        """How far the map is away from its mean."""

        def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth):
            cam = super().get_cam_image(input_tensor, target_layer, targets, activations, grads, eigen_smooth)
            assert type(cam) is np.ndarray
            seen.append(cam)
            return (cam - cam.mean((1, 2), keepdims=True)) ** 2

    return {"Strongest": Strongest, "Squared": Squared}[kind]


@pytest.mark.few(6)
@pytest.mark.parametrize("targets", [None, TARGETS], ids=["predicted", "targets"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("Strongest", name) for name in WEIGHTS), *(("Squared", name) for name in WEIGHTS + IMAGES)],
)
def test_a_class_of_ones_own_asks_its_parent(kind, name, targets):
    """`super().get_cam_weights(...)` and `super().get_cam_image(...)` of every class that has them."""

    def maps(package, seen, **options):
        model = cnn()
        layers = [model[4]] if name == "ShapleyCAM" else [model[2], model[4]]  # of two grad-cam's fails
        return asking(package, kind, name, seen)(model, layers, **options)(images(), targets)

    theirs, ours = [], []
    expected, found = maps(UPSTREAM, theirs), maps(OURS, ours, upstream_exact=True)
    assert expected.max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(ours) == (1 if name == "ShapleyCAM" else 2)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.few(14)
@pytest.mark.parametrize("call", [{}, {"aug_smooth": True}, {"eigen_smooth": True}], ids=str)
@pytest.mark.parametrize("name", [*WEIGHTS, *IMAGES])
def test_a_class_that_hands_on_its_parents_is_its_parent(name, call):
    """By default, too, where some of grad-cam's numbers are others."""
    model = cnn()
    found, expected = (
        kind(model, [model[4]])(images(), TARGETS, **call) for kind in (handing(name), getattr(OURS, name))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def handing(name):
    class Handing(getattr(OURS, name)):
        def get_cam_weights(self, *args):
            return super().get_cam_weights(*args)

        def get_cam_image(self, *args):
            return super().get_cam_image(*args)

    return Handing


def test_random_weights_of_a_parent():
    """Those that it draws itself, and others in the next call."""
    model = cnn()
    made = handing("RandomCAM")(model, [model[4]])
    first, second = made(images()), made(images())
    np.testing.assert_allclose(first, OURS.RandomCAM(model, [model[4]])(images()), atol=1e-5)
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("space", [(5, 6), (3, 4, 5)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "XGradCAM"])
def test_weights_of_arrays_alone(name, space):
    """Of channels that are zero everywhere as well; without a model having run."""
    draw = np.random.default_rng(0)
    activations, slopes = (draw.normal(size=(2, 7, *space)).astype(np.float32) for _ in range(2))
    activations = np.maximum(activations, 0)
    activations[:, 3] = 0
    model = cnn()
    theirs, ours = (
        package.get_cam_weights(None, None, None, activations, slopes)
        for package in (
            getattr(UPSTREAM, name)(model, [model[4]]),
            getattr(OURS, name)(model, [model[4]], upstream_exact=True),
        )
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert name == "XGradCAM" or np.abs(theirs[:, 3]).min() > 0


def test_weights_are_those_of_the_activations_that_a_parent_is_handed():
    """Not those of the model: here its channels in another order."""
    model = cnn()
    activations = model[:5](images()).detach().numpy()[:, ::-1].copy()
    handed = (images(), model[4], TARGETS, activations, None)
    theirs, ours = UPSTREAM.ScoreCAM(model, [model[4]]), OURS.ScoreCAM(model, [model[4]], upstream_exact=True)
    np.testing.assert_allclose(ours.get_cam_weights(*handed), theirs.get_cam_weights(*handed), rtol=1e-4)


@pytest.mark.parametrize(("name", "method"), [("HiResCAM", "get_cam_weights"), ("FullGrad", "get_cam_image")])
def test_what_a_parent_does_not_have_is_refused(name, method):
    """As grad-cam does: HiResCAM has no weights, FullGrad no map of one layer."""
    model = cnn()
    activations = model[:5](images()).detach().numpy()
    handed = (images(), model[4], TARGETS, activations, activations)
    for package in (UPSTREAM, OURS):
        with pytest.raises(NotImplementedError):
            getattr(getattr(package, name)(model, [model[4]]), method)(*handed)


def test_an_ablation_layer_of_ones_own():
    """One that chooses channels is used; one that takes them out in its own way would not be, and is refused."""

    def maps(package):
        class Two(package.AblationLayer):
            def activations_to_be_ablated(self, activations, ratio_channels_to_ablate=1.0):
                self.indices = np.array([1, 4])
                return self.indices

        model = cnn()
        return package.AblationCAM(model, [model[4]], ablation_layer=Two())(images(), TARGETS)

    np.testing.assert_allclose(maps(OURS), maps(UPSTREAM), atol=1e-4)
    assert np.abs(maps(OURS) - cam(OURS, "AblationCAM")).max() > 0.01

    class Doubling(OURS.AblationLayer):
        def __call__(self, x):
            return 2 * self.activations

    class Other(OURS.AblationLayerFasterRCNN):
        def set_next_batch(self, input_batch_index, activations, num_channels_to_ablate):
            self.activations = activations

    model = cnn()
    for kind, named in ((Doubling, "__call__"), (Other, "set_next_batch"), (UPSTREAM.AblationLayer, "set_next_batch")):
        with pytest.raises(InputTypeError, match=f"{kind.__name__}, which defines {named}"):
            OURS.AblationCAM(model, [model[4]], ablation_layer=kind())
    for kind in (OURS.AblationLayer, OURS.AblationLayerVit, OURS.AblationLayerFasterRCNN):
        OURS.AblationCAM(model, [model[4]], ablation_layer=kind())


def test_a_class_that_says_nothing_is_told_what_is_missing():
    class Empty(OURS.BaseCAM):
        pass

    model = cnn()
    with pytest.raises(NotImplementedError, match="Empty defines neither get_cam_weights nor get_cam_image"):
        Empty(model, [model[4]])(images())


class Dictionary(nn.Module):
    """An output that grad-cam cannot take apart."""

    def __init__(self):
        super().__init__()
        self.net = cnn()

    def forward(self, image):
        return {"out": self.net(image), "side": image.mean()}


@pytest.mark.parametrize("name", ["GradCAM", "ScoreCAM", "AblationCAM", "HiResCAM"])
def test_targets_of_ones_own_on_tensors_and_dicts(name):
    """One score per image, of that image's part of the output alone; the same whatever the output is packed in."""
    targets = [lambda out: out[1] - 2 * out[3], lambda out: out[2:4].max()]
    expected = cam(OURS, name, targets=targets)
    single = [cam(OURS, name, inputs=images()[i : i + 1], targets=[targets[i]])[0] for i in (0, 1)]
    np.testing.assert_allclose(expected, single, atol=1e-5)
    packed = [lambda row, target=target: target(row["out"]) for target in targets]
    np.testing.assert_allclose(
        cam(OURS, name, build=Dictionary, layers=("net.4",), targets=packed), expected, atol=1e-5
    )
    if name in ("GradCAM", "HiResCAM"):  # of negative scores, as these are, their Ablation-CAM is upside down
        np.testing.assert_allclose(cam(UPSTREAM, name, targets=targets), expected, atol=1e-4)


def test_a_target_may_hold_tensors_of_any_shape():
    """A perturbation takes rows of what the engine's own targets hold; not of the user's."""
    import dataclasses

    @dataclasses.dataclass
    class Weighted:
        weights: Tensor

        def __call__(self, out):
            return (out * self.weights).sum()

    weights = [torch.tensor([1.0, 0, -1, 0, 0]), torch.tensor([0.0, 2, 0, 0, 1])]
    found = cam(OURS, "AblationCAM", targets=[Weighted(w) for w in weights])
    np.testing.assert_allclose(found, cam(UPSTREAM, "AblationCAM", targets=[Weighted(w) for w in weights]), atol=1e-4)


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(TargetError, match="1 target for 2 images"):
        cam(OURS, "GradCAM", targets=TARGETS[:1])
    with pytest.raises(TargetError, match="did not return one score"):
        cam(OURS, "GradCAM", targets=[lambda out: out, lambda out: out])


def test_attributes():
    model = cnn()
    made = OURS.ScoreCAM(model=model, target_layers=[model[4]], reshape_transform=None)
    made.batch_size = 3
    found = made(input_tensor=images(), targets=TARGETS, aug_smooth=False, eigen_smooth=False)
    np.testing.assert_array_equal(found, made.forward(images(), TARGETS))
    torch.testing.assert_close(made.outputs, model(images()).detach())
    assert made.device == torch.device("cpu")
    assert made.get_target_width_height(images()[..., :20]) == (20, 32)
    made.activations_and_grads.release()


def test_batch_size_bounds_what_runs_at_once():
    model, sizes = cnn(), []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    made = OURS.ScoreCAM(model, [model[4]])
    made.batch_size = 3
    made(images(), TARGETS)
    assert max(sizes[1:]) == 3
    del sizes[:]
    OURS.AblationCAM(model, [model[4]], None, None, 5)(images(), TARGETS)
    assert max(sizes[1:]) == 5


def test_transforms_of_ones_own():
    """ttach's, as grad-cam takes them."""
    import ttach

    transforms = ttach.Compose([ttach.HorizontalFlip(), ttach.VerticalFlip(), ttach.Add([0, 0.1])])

    def maps(package):
        class Own(package.GradCAM):
            def __init__(self, model, layers):
                package.base_cam.BaseCAM.__init__(self, model, layers, tta_transforms=transforms)

        model = cnn()
        return Own(model, [model[4]])(images(), TARGETS, aug_smooth=True)

    np.testing.assert_allclose(maps(OURS), maps(UPSTREAM), atol=1e-4)


@both
def test_activations_and_gradients(package):
    """Both hold the layers' outputs and gradients, in the order of the layers, of the last call only."""
    model = cnn()
    seen = package.ActivationsAndGradients(model, [model[2], model[6]], lambda tensor: 2 * tensor)
    seen(images(3))
    outputs = seen(images())
    assert seen.gradients == []
    outputs[:, 1].sum().backward()
    same = cnn()
    first = same[:3](images())
    last = same[3:7](first)
    slopes = torch.autograd.grad(same[7:](last)[:, 1].sum(), [first, last])
    for found, expected in zip([*seen.activations, *seen.gradients], [first, last, *slopes], strict=True):
        torch.testing.assert_close(found, 2 * expected.detach())
        assert not found.requires_grad
    seen.release()
    assert seen.activations == []


def test_activations_in_the_order_asked_for_and_in_the_graph():
    model = cnn().requires_grad_(False)
    seen = OURS.ActivationsAndGradients(model, [model[6], model[2]], None, False)
    with torch.no_grad():
        outputs = seen(images())
    (slope,) = torch.autograd.grad(outputs[:, 1].sum(), seen.activations[1], create_graph=True)
    assert [tuple(found.shape[1:]) for found in seen.activations] == [(8, 8, 8), (6, 16, 16)]
    assert slope.grad_fn is not None
    image = images().requires_grad_()
    seen(image)[:, 1].sum().backward()
    assert bool(image.grad.any())
    torch.testing.assert_close(seen.gradients[1], slope)


def snapshot(model):
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "grads": [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()],
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state(),
    }


def made_of(name, model):
    if name in ("Weights", "Curved"):
        return own_class(OURS, name)(model, [model[4]])
    if name == "Asking":
        return asking(OURS, "Strongest", "ScoreCAM", deque(maxlen=0))(model, [model[4]])
    return getattr(OURS, name)(model, [model[4]], **({"num_scales": 1} if name == "SESS" else {}))


CLASSES = [name for name in OURS.__all__ if hasattr(getattr(OURS, name), "forward_augmentation_smoothing")]
NAMES = [
    *(name for name in CLASSES if name != "BaseCAM"),
    "FinerCAM",
    "RefineCAM",
    "SESS",
    "Weights",
    "Curved",
    "Asking",
]


def test_the_promises_are_asked_of_every_class():
    assert len(NAMES) == 20 - 1 + 3, "grad-cam's classes, less BaseCAM, and three of one's own"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_in_the_model_frozen_and_without_gradients(name):
    """Also while the object lives: grad-cam's hooks stay until it is gone, its eval mode for good."""
    expected = made_of(name, cnn())(images(), TARGETS)
    model = cnn().train().requires_grad_(False)
    model[8].weight.requires_grad_().grad = torch.ones_like(model[8].weight)
    before = snapshot(model)
    made = made_of(name, model)
    with torch.no_grad():
        found = made(images(), TARGETS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    with torch.inference_mode():
        np.testing.assert_allclose(made_of(name, model)(images(), TARGETS), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["GradCAM", "AblationCAM", "Weights"])
def test_exceptions_come_through_and_leave_nothing(name):
    """grad-cam prints an IndexError inside of `with`, and goes on."""

    def raising(_):
        raise IndexError("the caller's own")

    model = cnn().train()
    before = snapshot(model)
    with pytest.raises(IndexError, match="the caller's own"), made_of(name, model) as made:
        made(images(), [raising, raising])
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", NAMES)
def test_memory_is_flat_without_with(name):
    """Objects made in a loop go at once, without the garbage collector, and nothing of a call but `outputs` stays."""
    model, inputs = cnn(), images()
    made_of(name, model)(inputs, TARGETS)
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(found, Tensor) for found in gc.get_objects())
        kept = [made_of(name, model) for _ in range(3)]
        gone = []
        for _ in range(5):
            made = made_of(name, model)
            made(inputs, TARGETS)
            gone.append(weakref.ref(made))
            del made
        for one in kept:
            one(inputs, TARGETS)
        after = sum(isinstance(found, Tensor) for found in gc.get_objects())
    finally:
        gc.enable()
    assert [one() for one in gone] == [None] * 5
    assert after - before <= len(kept), "an output each"


def test_errors_are_the_engines():
    model = cnn()
    with pytest.raises(LayerError, match="not part of this model"):
        OURS.GradCAM(model, [nn.ReLU()])(images())
    with pytest.raises(GradientError):
        cam(OURS, "GradCAM", targets=[lambda out: out[1].detach()] * 2)


def test_random_cam_draws_anew_from_its_own_generator():
    model = cnn()
    made = OURS.RandomCAM(model, [model[4]])
    first, second = made(images()), made(images())
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(OURS.RandomCAM(model, [model[4]])(images()), first)
    seeded = torch.Generator().manual_seed(7)
    assert np.abs(OURS.RandomCAM(model, [model[4]], generator=seeded)(images()) - first).max() > 0.1
