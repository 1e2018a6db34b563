"""Methods without a score ask for none, and models say which methods they cannot serve."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy import methods
from seewhy.errors import MethodError, OutputError
from seewhy.targets import Unasked

pytestmark = [
    pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]

UNSCORED = ["eigen_cam", "fem", "lafam", "kpca_cam", "random_cam"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.features(images).mean((2, 3)))

    def features(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).relu()).relu()


class Detector(Net):
    """Boxes and scores that no gradient leads from."""

    def forward(self, images: Tensor) -> Any:
        self.features(images)
        return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)} for _ in images]


class Pair(Net):
    """Two outputs of one shape: which of them is meant cannot be told."""

    def forward(self, images: Tensor) -> Any:
        scores = super().forward(images)
        return scores, 2 * scores


def built(kind: type[Net] = Net) -> Net:
    torch.manual_seed(0)
    return kind().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Detector, Pair])
@pytest.mark.parametrize("method", UNSCORED)
def test_no_target_is_asked_for_where_no_score_is_used(method: str, kind: type[Net], images: Tensor) -> None:
    model = built(kind)
    found = seewhy.explain(model, images, method=method, layers="second")
    if method not in ("random_cam", "kpca_cam"):  # which take options or random numbers
        kept = model.second(model.first(images).relu()).detach()
        torch.testing.assert_close(found.maps["second"], methods.get(method).function(kept))
    assert found.scores.isnan().all()
    assert found.targets == Unasked(2)
    assert list(seewhy.explain(model, images, method=method).maps) == ["second"]


def test_a_method_with_a_score_still_asks(images: Tensor) -> None:
    with pytest.raises(OutputError):
        seewhy.explain(built(Pair), images, method="grad_cam")
    with pytest.raises(OutputError):
        seewhy.explain(built(Pair), images, method=["grad_cam", "eigen_cam"])


def test_a_class_that_can_be_told_is_told(images: Tensor) -> None:
    model = built()
    found = seewhy.explain(model, images, method="eigen_cam")
    torch.testing.assert_close(found.scores, model(images).amax(1))


def closed(kind: str, images: Tensor) -> nn.Module:
    model = built()
    if kind == "scripted":
        return torch.jit.trace(model, images)  # type: ignore[no-any-return, no-untyped-call]
    return torch.export.export(model, (images,)).module()


@pytest.mark.parametrize("kind", ["scripted", "exported"])
def test_models_of_one_graph_refuse_methods_of_layers_and_name_the_others(kind: str, images: Tensor) -> None:
    model = closed(kind, images)
    for method in ("grad_cam", "ablation_cam", "eigen_cam", "full_grad", "attention_rollout"):
        with pytest.raises(MethodError, match=rf"{kind}(.|\n)*{method}(.|\n)*rise, occlusion"):
            seewhy.explain(model, images, 1, method=method)
    expected = seewhy.explain(built(), images, 1, method="guided_backprop").maps["input"]
    torch.testing.assert_close(seewhy.explain(model, images, 1, method="guided_backprop").maps["input"], expected)


def test_a_traced_model_is_occluded_as_the_model_is(images: Tensor) -> None:
    found = seewhy.explain(closed("scripted", images), images, 1, method="occlusion")
    expected = seewhy.explain(built(), images, 1, method="occlusion")
    torch.testing.assert_close(found.maps["input"], expected.maps["input"], rtol=1e-4, atol=1e-5)


def test_layers_beside_a_traced_part_are_explained_and_full_grad_is_refused(images: Tensor) -> None:
    """full_grad would miss the biases inside of it."""
    model = built()
    model.first = torch.jit.trace(model.first, images)  # type: ignore[no-untyped-call]
    for method in ("grad_cam", "ablation_cam"):
        found = seewhy.explain(model, images, 1, method=method, layers="second")
        expected = seewhy.explain(built(), images, 1, method=method, layers="second")
        torch.testing.assert_close(found.maps["second"], expected.maps["second"])
    with pytest.raises(MethodError, match="traced"):
        seewhy.explain(model, images, 1, method="full_grad")


@pytest.mark.filterwarnings("ignore:.*quant:UserWarning", "ignore:.*quant:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::seewhy.errors.ReplayWarning")
def test_quantised_models_refuse_gradients_and_serve_the_rest(images: Tensor) -> None:
    model = torch.ao.quantization.quantize_dynamic(built(), {nn.Linear}, torch.qint8)  # type: ignore[attr-defined]
    for method in ("grad_cam", "full_grad", "guided_backprop", "opti_cam"):
        with pytest.raises(MethodError, match=rf"quantised(.|\n)*{method}(.|\n)*ablation_cam"):
            seewhy.explain(model, images, 1, method=method)
    for method in ("eigen_cam", "ablation_cam"):
        found = seewhy.explain(model, images, 1, method=method)
        assert list(found.maps) == ["second"]
        assert "no gradient leads to any" in found.note
        expected = seewhy.explain(built(), images, 1, method=method, layers="second").maps["second"]
        both = torch.stack([found.maps["second"].flatten(), expected.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > 0.9  # eight bits
