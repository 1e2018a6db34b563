"""Does a map depend on what was learned and on the class: by hand, from the oracle, beside quantus."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import quantus
import torch
from torch import nn

from seewhy import metrics
from seewhy.errors import InputError
from tests.metrics.cases import classifier, images, maps, seeded, tied
from tests.oracles.metrics import maps as oracle


def gradient(model, x):
    """What every layer of the classifier has a part in."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(model(x)[:, 2].sum(), x)[0].sum(1)


def close(found, expected, atol=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(expected), dtype=found.dtype), rtol=0, atol=atol)


def test_correlations_by_hand_and_from_the_oracle():
    a, b = torch.tensor([[[1.0, 2.0, 3.0, 3.0]]]), torch.tensor([[[0.0, 10.0, 11.0, 12.0]]])
    close(metrics.rank_correlation(a, b), [4.5 / (4.5 * 5) ** 0.5], 1e-6)  # ranks 0 1 2.5 2.5 and 0 1 2 3
    close(metrics.rank_correlation(a, -a), [-1], 1e-6)
    close(metrics.correlation(a, 2 * a + 1), [1], 1e-6)
    x = images()
    pairs = list(zip(tied(x), maps(x), strict=True))
    close(metrics.rank_correlation(tied(x), maps(x)), [oracle.rank_correlation(c, d) for c, d in pairs])
    close(metrics.correlation(tied(x), maps(x)), [oracle.pearson(c, d) for c, d in pairs])
    tenths = torch.full((3, 5, 10), 0.1, dtype=torch.float64)  # whose mean, summed, is not a tenth
    other = torch.randn(3, 5, 10, generator=seeded(), dtype=torch.float64)
    assert (tenths - tenths.mean((1, 2), keepdim=True)).abs().max() > 0
    assert metrics.correlation(tenths, other).isnan().all()
    assert metrics.correlation(other, tenths).isnan().all()
    assert metrics.rank_correlation(other, tenths).isnan().all()


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_layers_are_drawn_as_the_order_says(order):
    model, seen = classifier(), []

    def explain(drawn, x):
        seen.append({name: value.clone() for name, value in drawn.state_dict().items()})
        return gradient(drawn, x)

    found = metrics.parameter_randomization(explain, model, images(), order=order)
    names = ["first", "second", "head"]
    assert list(found.layers) == (names[::-1] if order == "top_down" else names)
    assert found.similarities.shape == (3, 3)
    before = model.state_dict()
    for step, state in enumerate(seen):
        drawn = {name.split(".")[0] for name in state if not state[name].equal(before[name])}
        expected = set(found.layers[:step]) if order != "independent" else set(found.layers[step - 1 : step])
        assert drawn == (expected if step else set())
    assert found.similarities.abs().max() < 1


def test_the_models_are_those_and_so_are_the_similarities():
    """The last step by hand: every parameter from the normal distribution of its mean and deviation."""
    model, x, draws = classifier(), images(), seeded()
    other = copy.deepcopy(model)
    for layer in (other.head, other.second, other.first):
        for parameter in (layer.weight, layer.bias):
            values = parameter.detach()
            drawn = torch.randn(values.shape, generator=draws).double()
            parameter.data = values.mean() + values.std(correction=0) * drawn
    found = metrics.parameter_randomization(gradient, model, x)
    pairs = zip(gradient(model, x), gradient(other, x), strict=True)
    close(found.similarities[-1], [oracle.rank_correlation(a, b) for a, b in pairs])
    cosine = metrics.parameter_randomization(gradient, model, x, similarity=metrics.correlation).similarities[-1]
    close(cosine, metrics.correlation(gradient(model, x), gradient(other, x)))


def test_a_map_of_the_image_does_not_notice():
    found = metrics.parameter_randomization(lambda model, x: x.sum(1), classifier(), images())
    close(found.similarities, torch.ones(3, 3), 1e-12)


def test_the_callers_model_is_untouched():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)).double().train()
    model[0].weight.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def explain(drawn, x):
        assert drawn is not model
        assert drawn.training
        drawn(x)
        return x.sum(1) * drawn[3].weight.sum()

    found = metrics.parameter_randomization(explain, model, images(), layers=["0", "3"], order="independent")
    assert found.layers == ("0", "3")
    assert all(before[name].equal(value) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert model.training
    assert state.equal(torch.get_rng_state())
    again = metrics.parameter_randomization(gradient, classifier(), images(), generator=seeded(3))
    assert not again.similarities.equal(metrics.parameter_randomization(gradient, classifier(), images()).similarities)


def test_beside_quantus():
    """It draws by each layer's own initialisation and moves the global random state; the rest is the same."""
    x, model = images().float(), classifier().float()
    before = torch.get_rng_state()
    theirs = _mprt(model, x)
    assert not before.equal(torch.get_rng_state())
    ours = metrics.parameter_randomization(gradient, model, x)
    assert list(ours.layers) == [name for name in theirs if name != "original"]
    close(torch.tensor(theirs["original"]), [1, 1, 1], 1e-6)

    steps = iter(range(4))
    found = metrics.parameter_randomization(lambda _, x: gradient(_reset(model, next(steps)), x), model, x)
    for name, row in zip(found.layers, found.similarities, strict=True):
        close(row, theirs[name], 1e-5)


def _mprt(model, x):
    metric = quantus.MPRT(
        similarity_func=quantus.similarity_func.correlation_spearman,
        layer_order="top_down",
        abs=False,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    return metric(
        model=model,
        x_batch=x.numpy(),
        y_batch=np.full(3, 2),
        channel_first=True,
        explain_func=lambda model, inputs, targets, **_: gradient(model, torch.as_tensor(inputs))[:, None].numpy(),
    )


def _reset(model, layers):
    """The model with that many of its layers, from the head on, initialised by quantus' seed."""
    model = copy.deepcopy(model)
    with torch.random.fork_rng():
        for layer in (model.head, model.second, model.first)[:layers]:
            torch.manual_seed(43)
            layer.reset_parameters()
    return model


def test_random_logit():
    x, model, target = images(), classifier(), torch.tensor([2, 0, 4])

    def explain(x, target):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0].sum(1)

    further = int(torch.randint(1, 5, (), generator=seeded()))
    pairs = zip(explain(x, target), explain(x, (target + further) % 5), strict=True)
    expected = [oracle.rank_correlation(a, b) for a, b in pairs]
    close(metrics.random_logit(explain, x, target, classes=5), expected)
    close(metrics.random_logit(explain, x, target, classes=5, maps=explain(x, target)), expected)
    close(metrics.random_logit(lambda x, _: x.sum(1), x, target, classes=5), [1, 1, 1])


def test_random_logit_beside_quantus():
    """With the classes that it draws, one for each image."""
    x, target = images().float(), torch.tensor([2, 0, 4])
    model = classifier().float()
    asked = []

    def explain(x, target):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)[0].sum(1)

    def explain_func(model, inputs, targets, **_):
        asked.append(torch.as_tensor(targets))
        return explain(torch.as_tensor(inputs), torch.as_tensor(targets))[:, None].numpy()

    metric = quantus.RandomLogit(
        num_classes=5,
        similarity_func=quantus.similarity_func.correlation_spearman,
        normalise=False,
        disable_warnings=True,
    )
    theirs = metric(
        model=model,
        x_batch=x.numpy(),
        y_batch=target.numpy(),
        a_batch=explain(x, target)[:, None].numpy(),
        channel_first=True,
        explain_func=explain_func,
    )
    other = asked[-1]
    found = metrics.random_logit(lambda x, t: explain(x, t if t.equal(target) else other), x, target, classes=5)
    close(found, theirs, 1e-5)


def test_bad_input():
    x, model = images(), classifier()
    with pytest.raises(InputError, match="no such order"):
        metrics.parameter_randomization(gradient, model, x, order="cascading")
    with pytest.raises(InputError, match="no parameters"):
        metrics.parameter_randomization(gradient, model, x, layers=["third"])
    with pytest.raises(InputError, match="no parameters"):
        metrics.parameter_randomization(gradient, nn.ReLU(), x)
    with pytest.raises(InputError, match="resize the maps"):
        metrics.parameter_randomization(lambda model, x: x, model, x)
    with pytest.raises(InputError, match="NaN or infinite"):
        metrics.parameter_randomization(lambda model, x: x.sum(1) / 0, model, x)
    constant = metrics.parameter_randomization(lambda model, x: torch.zeros_like(x[:, 0]), model, x)
    assert constant.similarities.isnan().all()
    for target in (torch.tensor([0, 1, 5]), torch.tensor([0, 1])):
        with pytest.raises(InputError, match="targets do not fit"):
            metrics.random_logit(lambda x, t: x.sum(1), x, target, classes=5)
