"""What a forward leaves behind, whatever the model does with recording while it runs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy.engine.session import session
from seewhy.engine.tape import Latest, along, gradients, guided
from seewhy.errors import GradientError, InputError, MethodError, ModelError

FREE = ("eigen_cam", "ablation_cam", "score_cam", "rise")  # of gradients
OPTIONS = {"rise": {"masks": 8}}


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


class Model(nn.Module):
    """`forward` runs the same network as `body` alone, in a way of its own."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.net, self.way, self.seen = body(), forward, []

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def straight(model: Model, x: Tensor) -> Tensor:
    return model.net(x)


def without_gradients(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.net(x)


def looks_at_an_array(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        inner = model.net[:4](x)
        assert inner.numpy().shape == np.asarray(inner).shape == copy.deepcopy(inner).shape
    return model.net[4:](inner)


def writes_to_a_weight(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        inner = model.net[:4](x)
        model.net[2].bias.copy_(model.net[2].bias + 0 * inner.mean())
    return model.net[4:](inner)


def all_in_inference_mode(model: Model, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.net(x)


def front_in_inference_mode(model: Model, x: Tensor) -> Tensor:
    with torch.inference_mode():
        inner = model.net[:2](x)
        factor = model.net[0](x) * 0 + 1
    return model.net[2:](inner * factor)


def back_in_inference_mode(model: Model, x: Tensor) -> Tensor:
    inner = model.net[:4](x)
    with torch.inference_mode():
        return model.net[4:](inner)


def checkpointed(model: Model, x: Tensor) -> Tensor:
    return model.net[4:](checkpoint(model.net[:4], x, use_reentrant=True))


WAYS = [
    without_gradients,
    looks_at_an_array,
    writes_to_a_weight,
    all_in_inference_mode,
    front_in_inference_mode,
    back_in_inference_mode,
    checkpointed,
]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def name_of(way) -> str:
    return way.__name__


@pytest.mark.few(14)
@pytest.mark.parametrize("method", ["layer_cam", "input_x_gradient", *FREE])
@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_a_models_own_switches_change_nothing(way, method: str, images: Tensor) -> None:
    """The map is that of the same network run straight through."""
    expected = seewhy.explain(Model(straight), images, 1, method=method, **OPTIONS.get(method, {}))
    model = Model(way)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = seewhy.explain(model, images, 1, method=method, **OPTIONS.get(method, {}))
    assert found.layers == expected.layers
    for one, other in zip(found.maps.values(), expected.maps.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("method", FREE)
def test_scores_without_a_graph_are_enough_for_methods_without_gradients(method: str, images: Tensor) -> None:
    def through_numpy(model: Model, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.from_numpy(model.net(x).numpy())

    options = OPTIONS.get(method, {})
    expected = seewhy.explain(Model(straight), images, 1, method=method, **options)
    found = seewhy.explain(Model(through_numpy), images, 1, method=method, **options)
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=1e-4, atol=1e-4)
    with pytest.raises(GradientError):
        seewhy.explain(Model(through_numpy), images, 1, method="grad_cam", layers="net.3")


def test_an_error_of_the_models_own_is_raised_as_it_is(images: Tensor) -> None:
    def fails(model: Model, x: Tensor) -> Tensor:
        model.seen.append(len(x))
        raise RuntimeError("requires grad, says the model")

    with pytest.raises(RuntimeError, match="says the model"):
        seewhy.explain(Model(fails), images, 1, layers="net.3")


def test_a_model_that_calls_itself(images: Tensor) -> None:
    """Each call of the layer by itself: the map of the last is that of the layers unrolled."""

    def again(model: Model, x: Tensor, times: int = 2) -> Tensor:
        x = model.net[:4](x)[:, :3]
        return model.net[4:](torch.cat([x, x[:, :2]], 1)) if not times else again_through(model, x, times - 1)

    def again_through(model: Model, x: Tensor, times: int) -> Tensor:
        model.way = lambda model, x: again(model, x, times)
        try:
            return model(x)
        finally:
            model.way = again

    model = Model(again)
    found = seewhy.explain(model, images, 1, method="ablation_cam", layers="net.3")
    assert tuple(found.maps) == ("net.3#0", "net.3#1", "net.3#2")
    with torch.no_grad():
        whole = model(images)[:, 1]
        inner = model.net[:4](model.net[:4](model.net[:4](images)[:, :3])[:, :3])
        weights = []
        for channel in range(5):
            x = inner.index_fill(1, torch.tensor([channel]), 0)[:, :3]
            weights.append((whole - model.net[4:](torch.cat([x, x[:, :2]], 1))[:, 1]) / whole.abs())
        expected = (torch.stack(weights, 1)[..., None, None] * inner).sum(1)
    torch.testing.assert_close(
        found.maps["net.3#2"] / found.maps["net.3#2"].abs().amax(),
        expected / expected.abs().amax(),
        rtol=1e-3,
        atol=1e-4,
    )


def test_lazy_layers_that_have_not_run_are_named(images: Tensor) -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ModelError, match=r"no weights yet(.|\n)*got: 0, 3(.|\n)*run the model once"):
        seewhy.explain(model, images, 0)
    model(images)
    assert seewhy.explain(model, images, 0).layers == ("0",)


class Converted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = body()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.abs() if x.is_complex() else x.float() / 255)


@pytest.mark.parametrize("kind", ["bytes", "complex"])
def test_inputs_without_a_gradient(kind: str) -> None:
    """Methods that change the input take them; those of its gradient say why not."""
    values = torch.randint(0, 255, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = values.to(torch.uint8) if kind == "bytes" else torch.complex(values.float(), 1.0 + values)
    model = Converted()
    options = {"window": 2, "stride": 2}
    found = seewhy.explain(model, images, 1, method="occlusion", **options)
    whole = model(images)[:, 1]
    hidden = images.clone()
    hidden[..., :2, :2] = 0
    lost = whole - model(hidden)[:, 1]
    (map_,) = found.maps.values()
    assert map_.shape[-2:] in {(4, 4), (8, 8)}
    torch.testing.assert_close(map_[:, 0, 0], lost.detach(), rtol=1e-3, atol=1e-4)
    for method in ("input_x_gradient", "smooth_grad", "integrated_gradients"):
        with pytest.raises(InputError, match=f"input of {'integers' if kind == 'bytes' else 'complex numbers'}"):
            seewhy.explain(model, images, 1, method=method)


def test_gradients_of_each_target_and_zeros_where_there_are_none() -> None:
    """d(x^2)/dx = 6 and d(3 x)/dx = 3 at x = 3; no score depends on y."""
    x, y = torch.tensor([3.0], requires_grad=True), torch.ones(2, requires_grad=True)
    first, second = gradients(torch.stack([x**2, 3 * x], 1), {"x": x, "y": y}, keep_graph=True)
    assert [slope["x"].tolist() for slope in (first, second)] == [[6], [3]]
    assert first["y"].tolist() == [0, 0]
    scores = (x**2)[:, None]
    (kept,) = gradients(scores, {"x": x}, differentiable=True)
    assert kept["x"].requires_grad
    assert along(kept["x"], x).tolist() == [6]  # the second derivative, 2, times x
    weight = torch.tensor([2.0], requires_grad=True)
    (linear,) = gradients((weight * x)[:, None], {"x": x}, differentiable=True)
    assert linear["x"].requires_grad, "by the weight: no second derivative has to be found for x"
    assert along(linear["x"], x).tolist() == [0]
    (again,) = gradients(scores, {"x": x})
    assert not again["x"].requires_grad
    with pytest.raises(RuntimeError, match="a second time"):
        next(gradients(scores, {"x": x}))
    with pytest.raises(GradientError, match="does not depend on x, y"):
        next(gradients(scores.detach(), {"x": x, "y": y}))


def test_guided_gradients_are_cut_at_zero_within_the_block_only() -> None:
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    score = (x.relu() * torch.tensor([5.0, -7.0])).sum()
    with guided(score):
        assert torch.autograd.grad(score, x, retain_graph=True)[0].tolist() == [5, 0]
    assert torch.autograd.grad(score, x)[0].tolist() == [5, -7]
    with pytest.raises(MethodError, match="needs an activation function"), guided((x * 2).sum()):
        pass


def test_nothing_is_recorded_before_the_layer(images: Tensor) -> None:
    model = Model(straight)
    with session(model, images) as run:
        tape = run.record(run.modules(("net.2", "net.3")))
    first, last = tape.activations.values()
    assert first.is_leaf
    assert first.requires_grad
    assert last.grad_fn is not None
    assert tape.image is None
    slopes = torch.autograd.grad(tape.outputs[:, 1].sum(), [first, last])
    assert torch.equal(slopes[0], slopes[1] * (first > 0))


def test_a_graph_keeps_its_tensors_from_the_last_span_on() -> None:
    """Of x -> x^2 three times over, spans "a" and "b": the gradient 8 x^7 ends at the last span of each, not before."""
    start = torch.tensor(1.5, requires_grad=True)
    inner, value, saved = [], start, Latest()
    with saved:
        for kind, name in (("a", "0"), ("a", "1"), ("b", "2")):
            saved.begin(kind, name)
            inner.append(value)
            value = value * value
    (slope,) = torch.autograd.grad(value, inner[1], retain_graph=True)
    assert float(slope) == 4 * 1.5**6  # of (x^2)^4 by x^2
    with pytest.raises(IndexError):
        torch.autograd.grad(value, start)


def test_spans_of_one_name_are_one() -> None:
    """The heads of one layer, one after the other: gradients at the first of them are still there."""
    start = torch.tensor(3.0, requires_grad=True)
    value, saved = start, Latest()
    with saved:
        for _ in range(2):
            saved.begin("a", "heads")
            value = value * value
    assert float(torch.autograd.grad(value, start)[0]) == 4 * 3.0**3


class HalfHidden(nn.Module):
    """Two branches behind one layer; one of them runs without a graph."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.seen, self.other = (nn.Conv2d(n, 4, 3, padding=1) for n in (3, 4, 4))
        self.head, self.hidden = nn.Linear(8, 3), hidden

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.hidden):
            other = self.other(x).relu()
        return self.head(torch.cat([self.seen(x).relu(), other], 1).mean((2, 3)))


@pytest.mark.parametrize("method", ["grad_cam", "saliency"])
def test_a_branch_without_a_graph_counts_as_the_other_does(images: Tensor, method: str) -> None:
    """The score still has a gradient, by the other branch: that it is not all of it is not to be seen from there."""
    maps = []
    for hidden in (True, False):
        model = HalfHidden(hidden=hidden).eval()
        layers = {"layers": "first"} if method == "grad_cam" else {}
        for _ in range(2):  # the first time is watched
            maps.append(next(iter(seewhy.explain(model, images, 1, method=method, **layers).maps.values())))
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0])


def test_a_forward_that_is_recorded_from_its_start_is_watched_by_itself(images: Tensor) -> None:
    """Behind the layer nothing needs help; what comes before it runs without a graph, and counts once all is asked."""

    class FirstHidden(HalfHidden):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.first(x)
            x = self.seen(x).relu()
            return self.head(torch.cat([x, x], 1).mean((2, 3)))

    model = FirstHidden(hidden=False).eval()
    with session(model, images) as run:
        layers = run.modules(("seen",))
        for _ in range(2):
            run.record(layers)
        for _ in range(2):
            tape = run.record(layers, from_start=True)
            (slope,) = torch.autograd.grad(tape.outputs[:, 1].sum(), model.first.weight)
            assert float(slope.abs().sum()) > 0
