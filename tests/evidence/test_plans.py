"""Where to look is worked out once for a model, a shape of input and a kind of target."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.per_model import PerModel
from seewhy.errors import MapWarning


class TwoHeads(nn.Module):
    """One head reads the first stage, the other the second."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.head_near, self.head_far = nn.Linear(4, 2), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        near = self.near(images).relu()
        far = self.far(near).relu()
        return {"near": self.head_near(near.mean((2, 3))), "far": self.head_far(far.mean((2, 3)))}


def two_heads() -> TwoHeads:
    torch.manual_seed(0)
    return TwoHeads().eval()


def test_a_second_call_costs_one_forward() -> None:
    model, images, ran = two_heads(), torch.randn(2, 3, 16, 16), []
    model.near.register_forward_hook(lambda *_: ran.append(1))
    for _ in range(3):
        seewhy.explain(model, images, lambda output: output["far"][:, 0], method="grad_cam")
    # the first call looks, records, runs images in other company, and sees what passes beside the layer
    assert len(ran) == 3 + 1 + 1 + 2


def test_another_head_has_another_layer_and_the_first_keeps_its_own() -> None:
    model, images = two_heads(), torch.randn(2, 3, 16, 16)

    def far(output: dict[str, Tensor]) -> Tensor:
        return output["far"][:, 0]

    def near(output: dict[str, Tensor]) -> Tensor:
        return output["near"][:, 0]

    explainer = seewhy.Explainer(model, method="grad_cam")
    layers = [explainer(images, target).layers for target in (far, near, far)]
    assert layers == [("far",), ("near",), ("far",)]


def test_a_target_of_the_same_kind_that_reads_another_layer_is_planned_anew() -> None:
    """The plan of an earlier call shows nothing for it: the map is not left blank."""
    model, images = two_heads(), torch.randn(2, 3, 16, 16)

    class Head:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, output: dict[str, Tensor]) -> Tensor:
            return output[self.name][:, 1]

    explainer = seewhy.Explainer(model, method="grad_cam")
    assert explainer(images, Head("far")).layers == ("far",)
    found = explainer(images, Head("near"))
    assert found.layers == ("near",)
    named = seewhy.Explainer(two_heads(), layers="near")(images, Head("near"))
    torch.testing.assert_close(found.maps["near"], named.maps["near"])


def test_an_exchanged_module_drops_the_plan() -> None:
    model, images = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        torch.randn(1, 3, 16, 16),
    )
    assert seewhy.explain(model, images, 0, method="grad_cam").layers == ("1",)
    model[1] = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    assert seewhy.explain(model, images, 0, method="grad_cam").layers == ("1",)
    assert seewhy.explain(model, images, 0, method="grad_cam").maps["1"].shape == (1, 12, 12)


def test_a_named_layer_without_places_is_told_of_each_time() -> None:
    class Mixed(nn.Module):
        """Four vectors, each of the whole image."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.near, self.mix, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 4), nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.mix(self.near(images).flatten(2)).mT.mean(1))

    explainer = seewhy.Explainer(Mixed(), "hires_cam", layers="mix", grid=None)
    for _ in range(2):
        with pytest.warns(MapWarning, match="the map of mix does not say where"):
            found = explainer(torch.randn(2, 3, 16, 16), 0)
        assert "does not say where" in found.note


def test_plans_do_not_keep_the_model_alive() -> None:
    model = two_heads()
    seewhy.explain(model, torch.randn(1, 3, 16, 16), lambda output: output["far"][:, 0], method="grad_cam")
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_value_per_model_is_dropped_with_it_and_with_its_structure() -> None:
    kept: PerModel[list[int]] = PerModel(list)
    model = nn.Sequential(nn.Linear(1, 1))
    kept.of(model).append(1)
    assert kept.of(model) == [1]
    model.append(nn.ReLU())
    assert kept.of(model) == []
    kept.of(model).append(2)
    del model
    gc.collect()
    kept.of(nn.Linear(1, 1))
    assert len(kept._kept) == 1


def test_two_levels_that_are_read_apart_are_both_looked_at() -> None:
    """Image 0 is scored by one branch and image 1 by the other, neither made of the other: both have a map."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.fine, self.coarse = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, stride=4, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            stem = self.stem(images).relu()
            return torch.stack([self.fine(stem).relu().mean((1, 2, 3)), self.coarse(stem).relu().mean((1, 2, 3))], 1)

    torch.manual_seed(0)
    model, images = Branches().eval(), torch.randn(2, 3, 16, 16)
    found = seewhy.explain(model, images, torch.tensor([0, 1]), method="grad_cam")
    assert found.layers == ("fine", "coarse")
    assert [bool(found.maps["fine"][image].any()) for image in (0, 1)] == [True, False]
    assert [bool(found.maps["coarse"][image].any()) for image in (0, 1)] == [False, True]
    alone = seewhy.explain(Branches().eval().requires_grad_(False), images[1:], 1, method="grad_cam")
    assert alone.layers == ("coarse",)
    assert found.heatmap[1].amax() == 1
