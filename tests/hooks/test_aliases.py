"""A layer that returns what it is given, and a model that writes to that afterwards: one tensor under two names."""

import pytest
import torch
from torch import nn

import seewhy
from seewhy.errors import LayerError


class Model(nn.Module):
    """conv, a layer that returns its input, an in-place operation on it, and a head that reads both names."""

    def __init__(self, layer, *, turned=False, writes_base=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.layer = layer
        self.head = nn.Linear(6, 4)
        self.turned, self.writes_base = turned, writes_base

    def forward(self, images):
        base = self.conv(images)
        if self.turned:  # then the layer is given a view
            base = base.transpose(2, 3)
        same = self.layer(base)
        return self.after(base, same)

    def after(self, base, same):
        if self.writes_base:
            base.sigmoid_()
        else:
            same.sigmoid_()
        return self.head((base * base + same).mean((2, 3)))


class Nested(nn.Module):
    def forward(self, x):
        return {"out": x.view_as(x)}["out"], None


class First(nn.Module):
    """Returns its input in a tuple, as attention layers do."""

    def __init__(self):
        super().__init__()
        self.inner = Nested()

    def forward(self, x):
        return self.inner(x)[0]


LAYERS = [nn.Dropout(0.5), nn.Identity(), nn.ReLU(inplace=True), First()]
MODELS = [(layer, turned, base) for layer in LAYERS for turned in (False, True) for base in (False, True)]
NAMES = [f"{type(layer).__name__}-{turned}-{base}" for layer, turned, base in MODELS]


@pytest.fixture
def images():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def made(layer, turned, base):
    torch.manual_seed(1)
    return Model(layer, turned=turned, writes_base=base).eval()


def by_hand(model, images, change=lambda tensor: tensor):
    """The scores of class 1 and their gradient at the layer's output, with the model's own tensor under both names."""
    with torch.no_grad():
        kept = model.conv(images)
        kept = model.layer(kept.transpose(2, 3) if model.turned else kept)
    leaf = change(kept).requires_grad_()
    same = leaf.clone()
    scores = model.after(same, same)[:, 1]
    return scores.detach(), leaf.detach(), torch.autograd.grad(scores.sum(), leaf)[0]


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
@pytest.mark.parametrize("case", MODELS, ids=NAMES)
def test_the_network_explained_is_the_model(case, images):
    model = made(*case)
    expected = model(images)
    scores, activations, slopes = by_hand(model, images)
    torch.testing.assert_close(scores, expected[:, 1])
    explanation = seewhy.explain(model, images, 1, method="hires_cam", layers="layer")
    torch.testing.assert_close(explanation.outputs, expected)
    torch.testing.assert_close(explanation.maps["layer"], (activations * slopes).sum(1))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
@pytest.mark.parametrize("case", MODELS[:4], ids=NAMES[:4])
def test_a_channel_is_ablated_under_both_names(case, images):
    model = made(*case)
    whole, activations, _ = by_hand(model, images)
    weights = []
    for channel in range(6):
        without = by_hand(model, images, lambda tensor, c=channel: tensor.index_fill(1, torch.tensor([c]), 0))[0]
        weights.append((whole - without) / whole.abs())
    expected = (torch.stack(weights, 1)[..., None, None] * activations).sum(1)
    found = seewhy.explain(model, images, 1, method="ablation_cam", layers="layer").maps["layer"]
    torch.testing.assert_close(found / found.abs().amax(), expected / expected.abs().amax(), rtol=1e-4, atol=1e-4)


WATCHED = [case for case in MODELS if not isinstance(case[0], nn.ReLU)]


@pytest.mark.parametrize("case", WATCHED, ids=[name for name in NAMES if "ReLU" not in name])
@pytest.mark.parametrize("what", ["grad_outputs", "grad_inputs"])
def test_capture_of_gradients_refuses_to_part_them(case, what, images):
    model = made(*case)
    with pytest.raises(LayerError, match="layer returns what it is given"), seewhy.capture(model, "layer", what=what):
        model(images)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("what", ["inputs", "outputs"])
def test_an_edit_refuses_to_part_them(what, recorded, images):
    model = made(*MODELS[0])
    with (
        pytest.raises(LayerError, match="layer returns what it is given"),
        torch.set_grad_enabled(recorded),
        seewhy.edit(model, {"layer": seewhy.scale(1.0)}, what=what),
    ):
        model(images)


def test_an_edit_that_changes_nothing_keeps_the_tensor(images):
    model = made(*MODELS[0])
    expected = model(images)
    with seewhy.edit(model, {"layer": lambda tensor: tensor}):
        assert torch.equal(model(images), expected)


def test_values_are_captured_without_a_copy_in_the_way(images):
    model = made(*MODELS[0])
    expected = model(images)
    with seewhy.capture(model, "layer", what=("inputs", "outputs")) as seen:
        assert torch.equal(model(images), expected)
    torch.testing.assert_close(seen["layer"][0].outputs, model.conv(images))


@pytest.mark.parametrize("what", ["grad_outputs", "grad_inputs"])
def test_one_name_alone_may_be_written_to(what, images):
    """Dropout and then ReLU in place, as in many networks: nobody reads what Dropout was given."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Dropout(), nn.ReLU(inplace=True), nn.Conv2d(6, 1, 3)).eval()
    expected = model(images)
    with seewhy.capture(model, "1", what=what) as seen:
        outputs = model(images)
        outputs.sum().backward()
    torch.testing.assert_close(outputs, expected)
    hidden = model[0](images).detach().requires_grad_()
    slope = torch.autograd.grad(model[3](hidden.relu()).sum(), hidden)[0]
    found = seen["1"][0]
    torch.testing.assert_close(found.grad_outputs if what == "grad_outputs" else found.grad_inputs[0], slope)


def test_concepts_refuse_it(images):
    with pytest.raises(LayerError, match="layer returns what it is given"):
        seewhy.concepts(made(*MODELS[0]), images, 2, layers="layer")
