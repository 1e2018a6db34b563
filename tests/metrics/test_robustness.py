"""Sensitivity and stability of maps under noise: by hand, from the oracle, beside captum and quantus."""

from __future__ import annotations

import captum.metrics
import numpy as np
import pytest
import quantus
import torch

from seewhy import metrics
from seewhy.errors import InputError
from tests.metrics.cases import classifier, images, seeded
from tests.oracles.metrics import maps as oracle

MODEL = classifier()
SENSITIVITIES = ("max_sensitivity", "average_sensitivity")
NAMES = (*SENSITIVITIES, "relative_input_stability", "relative_output_stability")


def explain(rows):
    """Not linear, never 0."""
    return (rows.square().sum(1) + 0.1).sqrt() * (1 + rows[:, :1].mean((1, 2, 3)).square()[:, None, None])


def measured(name, function=explain, x=None, **options):
    x = images() if x is None else x
    outputs = (MODEL,) if name == "relative_output_stability" else ()
    return getattr(metrics, name)(function, x, *outputs, **options)


def noises(radius, count, shape=(3, 8, 8)):
    draws = seeded()
    return [radius * (2 * torch.rand(shape, generator=draws).double().numpy() - 1) for _ in range(count)]


def one(function):
    return lambda image: function(torch.as_tensor(image)[None])[0].detach().numpy()


def close(found, expected, atol=1e-6):
    """The noise is drawn in float32."""
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(expected), dtype=found.dtype), rtol=1e-6, atol=atol)


def test_by_hand():
    """The map is the image, (3, 4), and the noise n: its norm by 5. The relative changes of map and image are equal."""
    x = torch.tensor([[[[3.0, 4.0]]]])
    drawn = [0.5 * (2 * torch.rand(1, 1, 2, generator=seeded()) - 1)]
    drawn.append(0.5 * (2 * torch.rand(3, 1, 1, 2, generator=seeded())[1] - 1))
    shares = torch.stack([noise.norm() / 5 for noise in drawn])
    few = {"radius": 0.5, "samples": 2}
    close(metrics.max_sensitivity(lambda rows: rows[:, 0], x, **few), shares.amax()[None])
    close(metrics.average_sensitivity(lambda rows: rows[:, 0], x, **few), shares.mean()[None])
    close(metrics.relative_input_stability(lambda rows: rows[:, 0], x, **few), [1])
    close(metrics.relative_input_stability(lambda rows: rows[:, 0] ** 2, x, radius=1e-3), [2], 1e-3)
    moved = max(float((n / x).norm() / n.norm()) for n in drawn)
    close(metrics.relative_output_stability(lambda rows: rows[:, 0], x, lambda rows: rows[:, 0, 0], **few), [moved])


def test_sensitivity_from_the_oracle():
    x = images()
    shares = [oracle.sensitivities(one(explain), image, noises(0.3, 5)) for image in x.numpy()]
    few = {"radius": 0.3, "samples": 5, "batch_size": 6}
    close(measured("max_sensitivity", **few), [max(share) for share in shares])
    close(measured("average_sensitivity", **few), [np.mean(share) for share in shares])


def test_stability_from_the_oracle():
    x = images()
    few = {"radius": 0.3, "samples": 5, "batch_size": 6}
    expected = [oracle.input_stability(one(explain), image, noises(0.3, 5)) for image in x.numpy()]
    close(measured("relative_input_stability", **few), expected)
    expected = [oracle.output_stability(one(explain), one(MODEL), image, noises(0.3, 5)) for image in x.numpy()]
    close(measured("relative_output_stability", **few), expected)


def test_volumes():
    x = images(2, side=4, channels=1, dims=3)
    model = classifier(channels=1, side=4, dims=3)

    def warm(rows):
        return rows[:, 0].square() + 0.1

    shares = [oracle.sensitivities(one(warm), image, noises(0.02, 10, (1, 4, 4, 4))) for image in x.numpy()]
    close(metrics.max_sensitivity(warm, x), [max(share) for share in shares])
    expected = [
        oracle.output_stability(one(warm), one(model), image, noises(0.02, 10, (1, 4, 4, 4))) for image in x.numpy()
    ]
    close(metrics.relative_output_stability(warm, x, model), expected)


def test_noise_that_changes_the_class_is_not_counted():
    x = torch.zeros(1, 1, 2, 2) + 0.1

    def outputs(rows):
        return torch.stack([rows.mean((1, 2, 3)), rows.new_full((len(rows),), 0.1)], 1)  # any noise down changes it

    counted = metrics.relative_input_stability(
        lambda rows: rows[:, 0] ** 3, x, radius=0.05, samples=20, outputs=outputs
    )
    everything = metrics.relative_input_stability(lambda rows: rows[:, 0] ** 3, x, radius=0.05, samples=20)
    assert counted.isfinite().all()
    assert counted <= everything
    never = metrics.relative_input_stability(
        lambda rows: rows[:, 0] ** 3,
        x,
        outputs=lambda rows: (
            torch.stack([(rows == 0.1).all(3).all(2).all(1), (rows != 0.1).any(3).any(2).any(1)], 1) * 1.0
        ),
    )
    assert never.isnan().all()


class Predicts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = classifier()

    def forward(self, x):
        return self.inner(x.double()).float()


@pytest.mark.parametrize("name", NAMES)
def test_beside_quantus(monkeypatch, name):
    """The same for the same noise, where no value of a map is 0 and the class stays."""
    x = images().float()
    drawn = [0.02 * (2 * torch.rand(3, 8, 8, generator=g) - 1).numpy() for g in [seeded()] for _ in range(6)]
    given = iter(drawn)

    def noise(low, high, size):
        return np.broadcast_to(next(given).reshape(1, -1), size)

    monkeypatch.setattr(np.random, "uniform", noise)
    metric = {
        "max_sensitivity": quantus.MaxSensitivity,
        "average_sensitivity": quantus.AvgSensitivity,
        "relative_input_stability": quantus.RelativeInputStability,
        "relative_output_stability": quantus.RelativeOutputStability,
    }[name]

    def explain_func(model, inputs, targets, **_):
        return explain(torch.as_tensor(inputs))[:, None].numpy()

    theirs = metric(nr_samples=6, disable_warnings=True, normalise=False, return_nan_when_prediction_changes=False)(
        model=Predicts().eval(),
        x_batch=x.numpy(),
        y_batch=np.zeros(3, int),
        a_batch=explain(x)[:, None].numpy(),
        explain_func=explain_func,
        channel_first=True,
    )
    found = (
        measured(name, x=x, samples=6)
        if name != NAMES[3]
        else metrics.relative_output_stability(explain, x, Predicts(), samples=6)
    )
    torch.testing.assert_close(found.double(), torch.as_tensor(np.asarray(theirs)).double(), rtol=1e-3, atol=0)


def test_max_sensitivity_is_captums():
    x = images()
    drawn = [0.02 * (2 * torch.rand(3, 8, 8, generator=g) - 1).double() for g in [seeded()] for _ in range(4)]
    given = iter(drawn)
    expected = captum.metrics.sensitivity_max(
        lambda rows: (explain(rows[0] if isinstance(rows, tuple) else rows),),
        x,
        perturb_func=lambda rows: rows + next(given),
        n_perturb_samples=4,
        max_examples_per_batch=3,
    )
    close(metrics.max_sensitivity(explain, x, samples=4), expected)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_judged(name):
    x = images()

    def blank(rows):
        return explain(rows) * (torch.arange(len(rows)) % 3 != 1)[:, None, None]

    found = measured(name, blank)
    assert found.isnan().tolist() == [False, True, False]
    close(measured(name, x=x[:1]), measured(name)[:1])
    close(measured(name, batch_size=9), measured(name))
    if name in SENSITIVITIES:
        close(measured(name, lambda rows: torch.ones_like(rows[:, 0])), [0, 0, 0])  # a map that never changes
    with pytest.raises(InputError, match="resize the maps"):
        measured(name, lambda rows: rows)
    with pytest.raises(InputError, match="NaN or infinite"):
        measured(name, lambda rows: rows[:, 0] * torch.nan)
    with pytest.raises(InputError, match="no radius"):
        measured(name, radius=0.0)
    with pytest.raises(InputError, match="samples"):
        measured(name, samples=0)
    with pytest.raises(InputError, match="fewer images"):
        measured(name, batch_size=2)
    state = torch.get_rng_state()
    assert not measured(name, generator=seeded(3)).equal(measured(name))
    assert state.equal(torch.get_rng_state())


def test_outputs_are_rows_of_numbers():
    with pytest.raises(InputError, match="row of numbers"):
        metrics.relative_output_stability(explain, images(), lambda rows: rows.sum((1, 2, 3)))
