"""One way into a model: what runs in a session leaves the model, the inputs and the random states as they were."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn

import seewhy
from seewhy.engine.session import session
from seewhy.errors import InputError, ModelError


class Draws(nn.Module):
    """Draws in its forward, in whatever mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return (self.conv(images) + torch.rand(1)).mean((2, 3))


def test_what_runs_aside_does_not_move_the_random_state_of_the_session() -> None:
    model, images = Draws(), torch.randn(1, 3, 8, 8)
    with session(model, images) as run:
        torch.manual_seed(1)
        with run.aside():
            run.run()
        beside = run.run()
    with session(model, images) as run:
        torch.manual_seed(1)
        plain = run.run()
    assert torch.equal(beside, plain)


def test_the_forward_gets_copies() -> None:
    class Writes(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.zero_().mean((2, 3))

    images = torch.ones(1, 2, 4, 4)
    with session(Writes(), images) as run:
        assert float(run.run().sum()) == 0
        assert torch.equal(run.call.image, torch.ones(1, 2, 4, 4))
    assert torch.equal(images, torch.ones(1, 2, 4, 4))


def test_an_integer_image_cannot_be_recorded_from() -> None:
    with (
        session(nn.Flatten(), torch.ones(1, 2, 4, 4, dtype=torch.long)) as run,
        pytest.raises(InputError, match="integers"),
    ):
        run.record({}, from_input=True)


def test_a_detectors_own_transform_runs_under_the_guard() -> None:
    """In train mode it draws its size. The random state stays, and the canvas is the same in every call."""
    torch.manual_seed(0)
    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=(64, 80, 96, 112)
    ).train()
    images = [torch.rand(3, 64, 64)]
    states = random.getstate(), torch.get_rng_state()
    spaces = []
    for _ in range(4):
        with session(model, images) as run:
            spaces.append(run.call.space)
    assert len(set(spaces)) == 1
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert model.training
    seewhy.summary(
        model, images, lambda found: found[0]["scores"].sum()[None] + 0 * sum(p.sum() for p in model.head.parameters())
    )
    assert torch.equal(torch.get_rng_state(), states[1])


class Halves(nn.Module):
    """Two parts, which may be on different devices: the second one moves what it is given to its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).to(self.second.weight.device)).mean((2, 3))


def test_weights_without_values_are_named() -> None:
    model = Halves()
    model.second.to("meta")
    with pytest.raises(ModelError, match="on the device 'meta'") as caught:
        seewhy.explain(model, torch.rand(1, 3, 8, 8), 0, method="grad_cam")
    assert "got: second.weight, second.bias\n" in str(caught.value)
    model.second.to_empty(device="cpu").load_state_dict(nn.Conv2d(4, 4, 3).state_dict())  # what the message advises
    assert seewhy.explain(model, torch.rand(1, 3, 8, 8), 0, method="grad_cam").heatmap.shape == (1, 8, 8)


@pytest.mark.few(3)
@pytest.mark.parametrize(
    "method", ["full_grad", "ablation_cam", "cam", "grad_cam", "guided_backprop", "integrated_gradients"]
)
def test_what_accelerate_keeps_elsewhere_is_explained_as_what_is_in_memory(method: str) -> None:
    """Weights lie on "meta" but for the length of their layer's forward; bit for bit the same map, and there again."""
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip
    images = torch.randn(2, 3, 16, 16)
    model = accelerate.cpu_offload(copy.deepcopy(plain), execution_device="cpu")
    assert all(weight.is_meta for weight in model.parameters())
    expected = seewhy.explain(plain, images, 1, method=method)
    found = seewhy.explain(model, images, 1, method=method)
    assert torch.equal(found.heatmap, expected.heatmap)
    assert all(weight.is_meta for weight in model.parameters())
