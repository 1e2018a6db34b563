"""Maps on the input: guided backpropagation through any activation function, and every part of a score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy import methods
from seewhy.errors import InputError, MethodError
from seewhy.methods.attribution import pixel
from tests.oracles import pixel as oracle

RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "tensor.relu": lambda x: x.relu(),
    "tensor.relu_": lambda x: x.relu_(),
}


def random(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Dense(nn.Module):
    """Two dense layers on the pixels of a 4x4 image, and three scores; `relu` after each."""

    def __init__(self, relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = (nn.Linear(a, b, bias=False) for a, b in ((16, 12), (12, 8), (8, 3)))
        self.relu = relu

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.relu(self.second(self.relu(self.first(image.flatten(1))))))

    def guided(self, images: Tensor, classes: list[int]) -> Tensor:
        matrices = [layer.weight.detach().double().numpy() for layer in (self.first, self.second)]
        heads = self.head.weight.detach().double().numpy()
        maps = [
            oracle.guided_gradient(image.double().flatten().numpy(), [*matrices, heads[number]])
            for image, number in zip(images, classes, strict=True)
        ]
        return torch.from_numpy(np.stack(maps)).reshape(len(images), 4, 4).float()


def test_guided_backprop_by_hand():
    """S = relu(x) - relu(-x), two units of weight 1 and -1. Guided, the unit of weight -1 passes nothing on."""

    class Two(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (image.relu() - (-image).relu()).flatten(1).sum(1, keepdim=True)

    image = torch.tensor([[[[1.0, -2.0], [3.0, -4.0]]]])
    found = seewhy.explain(Two(), image, lambda output: output[:, 0], method="guided_backprop")
    assert found.layers == ("input",)
    torch.testing.assert_close(found.maps["input"], torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_guided_backprop_sees_any_relu_in_every_image(relu):
    model, images = Dense(relu), random((3, 1, 4, 4))
    found = seewhy.explain(model, images, [0, 2, 1], method="guided_backprop").maps["input"]
    expected = model.guided(images, [0, 2, 1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    plain = images.requires_grad_()
    (slope,) = torch.autograd.grad(model(plain)[[0, 1, 2], [0, 2, 1]].sum(), plain)
    assert (slope[:, 0] - expected).abs().max() > 0.1 * expected.abs().max()


@pytest.mark.parametrize("function", [F.gelu, F.silu, F.elu, F.hardswish, lambda x: F.leaky_relu(x, 0.2)])
def test_guided_backprop_of_smooth_functions_keeps_their_own_derivative(function):
    """What arrives is cut at 0, then multiplied by f'(z): one unit per pixel, of weights 1 and -1 in turn."""

    class Units(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (function(image) * torch.tensor([1.0, -1.0, 1.0, -1.0])).flatten(1).sum(1, keepdim=True)

    image = random((1, 1, 3, 4)).requires_grad_()
    (derivative,) = torch.autograd.grad(function(image).sum(), image)
    found = seewhy.explain(Units(), image.detach(), lambda output: output[:, 0], method="guided_backprop")
    torch.testing.assert_close(found.maps["input"], derivative[:, 0] * torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_guided_backprop_without_an_activation_function_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(MethodError, match=r"guided backpropagation needs an activation function(.|\n)*Relu, Gelu"):
        seewhy.explain(model, random((1, 1, 4, 4)), 0, method="guided_backprop")


def test_guided_gradients_leave_the_plain_ones_as_they_are():
    """Both are taken from one graph; the hooks on it are gone when the plain gradient is taken again."""
    model, images = Dense(F.relu), random((2, 1, 4, 4))
    probe = methods.Method("probe", "test", lambda input_gradients: input_gradients[:, 0], ("input_gradients",), "", "")
    classes = torch.tensor([[0, 1], [2, 0]])
    found = seewhy.explain(model, images, classes, method=["guided_backprop", probe])
    for number in range(2):
        plain = images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(plain)[[0, 1], classes[:, number]].sum(), plain)
        torch.testing.assert_close(found["probe"].maps["input"][:, number], slope[:, 0])
        guided = model.guided(images, classes[:, number].tolist())
        torch.testing.assert_close(found["guided_backprop"].maps["input"][:, number], guided, rtol=1e-4, atol=1e-6)


def test_guided_backprop_goes_below_the_models_own_no_grad():
    class Frozen(Dense):
        def forward(self, image: Tensor) -> Tensor:
            with torch.no_grad():
                hidden = self.relu(self.first(image.flatten(1)))
            return self.head(self.relu(self.second(hidden)))

    model, images = Frozen(F.relu), random((2, 1, 4, 4))
    found = seewhy.explain(model, images, [0, 2], method="guided_backprop").maps["input"]
    torch.testing.assert_close(found, model.guided(images, [0, 2]), rtol=1e-4, atol=1e-6)


def test_guided_grad_cam_by_hand():
    """Grad-CAM of one cell each: A = (1, 2; 3, -4) with gradient 2 everywhere, so (2, 4; 6, 0) after the ReLU."""
    activations = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])
    guided = torch.tensor([[[[1.0, -1.0], [0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]])
    found = pixel.guided_grad_cam(activations, torch.full_like(activations, 2), guided)
    torch.testing.assert_close(found, torch.tensor([[[4.0, -4.0], [3.0, 0.0]]]))


def test_guided_grad_cam_is_the_product_of_the_two():
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 4))
    images = random((2, 3, 17, 17))
    found = seewhy.explain(model, images, [0, 3], method=["guided_grad_cam", "guided_backprop", "grad_cam"])
    cam = found["grad_cam"].maps["1"].clamp(min=0)
    resized = F.interpolate(cam[:, None], (17, 17), mode="bilinear")[:, 0]
    assert found["guided_grad_cam"].layers == ("1",)
    torch.testing.assert_close(found["guided_grad_cam"].maps["1"], resized * found["guided_backprop"].maps["input"])


# FullGrad


def test_full_grad_by_hand():
    """x . g is (1, 2; 3, 4), scaled (0, 1/3; 2/3, 1); one bias of two channels and no extent, 2 and -4, scaled 0 and 1.
    Scaled channel by channel, the second part would be 0.
    """
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    bias = torch.tensor([2.0, -4.0]).reshape(1, 2, 1, 1)
    found = pixel.full_grad(image, -torch.ones_like(image), [bias])
    torch.testing.assert_close(found, torch.tensor([[[1.0, 4 / 3], [5 / 3, 2.0]]]))


@pytest.mark.parametrize("size", [(6, 5), (4, 6, 5)], ids=["2-D", "3-D"])
def test_full_grad_equals_slow_twin(size):
    halves = tuple((n + 1) // 2 for n in size)
    image, slope = random((2, 3, *size)).double(), random((2, 3, *size), 1).double()
    biases = [random((2, 4, *size), 2).double(), random((2, 5, *halves), 3).double() * 10]
    expected = oracle.full_grad([(image * slope).numpy(), *(part.numpy() for part in biases)], size)
    torch.testing.assert_close(pixel.full_grad(image, slope, biases), torch.from_numpy(expected))


class Piecewise(nn.Module):
    """Linear layers and ReLUs, with every kind of bias, a batch normalisation without one, and an overwrite."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.norm, self.plain = nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)
        self.squeeze = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 4, bias=False)
        for norm in (self.norm, self.plain):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.first(image)).relu_()
        x = self.plain(self.second(x))
        x += 0.5 * x
        x = F.relu(x, inplace=True).mean((-2, -1), keepdim=True)
        return self.head(self.squeeze(x).relu().flatten(1))


def test_full_grads_parts_sum_to_the_score():
    """f(x) = x . df/dx + sum_b b . df/db, for each image and class: no part is missing, and none counted twice."""
    seen = []

    def probe(inputs: Tensor, input_gradients: Tensor, bias_gradients: list[Tensor]) -> Tensor:
        parts = [inputs * input_gradients, *bias_gradients]
        seen.append(sum(part.flatten(1).sum(1) for part in parts))
        assert len(parts) == 6
        return inputs[:, 0]

    needs = ("inputs", "input_gradients", "bias_gradients")
    method = methods.Method("probe", "test", probe, needs, "a test", "1 forward, 1 backward")
    images = random((3, 3, 8, 8))
    found = seewhy.explain(Piecewise(), images, torch.tensor([[0, 1], [2, 3], [1, 1]]), method=method)
    torch.testing.assert_close(torch.stack(seen, 1), found.scores, rtol=1e-4, atol=1e-5)


def test_an_input_of_integers_is_refused():
    class Bytes(Dense):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image.float() / 255)

    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"input of integers(.|\n)*uint8(.|\n)*looks at a layer"):
        seewhy.explain(Bytes(F.relu), images, 0, method="guided_backprop")


def test_a_method_that_looks_at_the_input_takes_no_layers():
    with pytest.raises(MethodError, match="full_grad looks at the input, not at a layer"):
        seewhy.Explainer(Piecewise(), ["grad_cam", "full_grad"], layers="second")
