"""The choice of method and layer: what it finds, what it costs, and what it says where nothing can be found."""

from __future__ import annotations

import copy

import pytest
import torch

import seewhy
from seewhy.errors import InputError, MethodError
from seewhy.evaluation._halving import better, halved
from seewhy.evaluation._meter import Meter
from seewhy.metrics import average_precision
from tests.evaluation.planted import SPOT, Corner, Spot, right, shifted, spotted
from tests.truth.models import CASES


def test_halving_finds_the_best_of_thirty_from_noisy_measurements():
    """Candidate 17 is worth 1, the others 0 to 0.5; noise of 0.2. 300 measurements are ten for each."""
    worth = torch.linspace(0, 0.5, 30)
    worth[17] = 1.0
    asked = []

    def measure(numbers, trials):
        asked.extend((number, trial) for number in numbers for trial in trials)
        noise = torch.randn(len(numbers), len(trials), generator=torch.Generator().manual_seed(len(asked)))
        return worth[list(numbers)][:, None] + 0.2 * noise

    trials = [(image, 0.1) for image in range(60)]
    order, measured = halved(30, 0, measure, trials, 300)
    assert order[0] == 17
    assert len(asked) == len(set(asked)) <= 300
    assert len(measured[17]) > 3 * len(measured[1])


def test_of_two_that_cannot_be_told_apart_the_first_is_taken():
    def measure(numbers, trials):
        values = torch.tensor([[0.5, 0.4, 0.6, 0.5], [0.6, 0.3, 0.6, 0.52], [0.1, 0.1, 0.1, 0.1]])
        return values[list(numbers)][:, : len(trials)]

    order, _ = halved(3, 0, measure, [(0, 0.1), (1, 0.1), (2, 0.1), (3, 0.1)], 100)
    assert order[0] == 0  # the second is better by 0.005 on the mean, with a standard error of 0.06


@pytest.mark.parametrize(("errors", "expected"), [(1.0, True), (2.0, False)])
def test_better_by_standard_errors(errors, expected):
    differences = torch.tensor([0.0, 1.0, 2.0, -0.2])  # mean 0.7, standard deviation 1.013, standard error 0.506
    assert better(differences, torch.zeros(4), errors) is expected


def test_the_meter_gives_the_share_of_the_way_by_hand():
    """The image's score is its sum, 16; blank it is 0 all over: half the heat lies on the three hot pixels."""
    images = torch.zeros(1, 1, 4, 4)
    images[0, 0, 0] = torch.tensor([4.0, 4.0, 4.0, 4.0])
    meter = Meter(lambda rows, numbers: rows.sum((1, 2, 3)), images, 8)
    meter.blank = torch.zeros_like(images)
    meter.low, meter.reach = torch.tensor([0.0]), torch.tensor([16.0])
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, :2], maps[0, 3, 3] = torch.tensor([3.0, 2.0]), 1.0
    found = meter.measure([maps], [(0, 1 / 16), (0, 2 / 16), (0, 3 / 16)])
    # 4 of 16 inserted and 12 left: 1/4 - 3/4; 8 and 8; the third pixel holds nothing
    torch.testing.assert_close(found, torch.tensor([[-0.5, 0.0, 0.0]]))


def test_an_image_whose_blurred_version_scores_more_says_nothing():
    images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    meter = Meter(lambda rows, numbers: -rows.var((1, 2, 3)), images, 8)
    assert float(meter.reach) < 0
    assert meter.measure([images[:, 0]], [(0, 0.1), (0, 0.5)]).tolist() == [[0.0, 0.0]]


def test_the_planted_best_candidate_is_chosen_and_reported():
    model, images = Spot().eval(), spotted(6)
    candidates = ["random_cam@layer", "eigen_cam@layer", "hires_cam@layer", "full_grad"]
    choice = seewhy.choose(model, images, 0, candidates=candidates)
    assert choice.method == "hires_cam"
    assert choice.layers == ("layer",)
    assert choice.beats_floor
    assert choice.reason.startswith("hires_cam@layer: insertion minus deletion ")
    assert f"{choice.forwards} forwards" in choice.reason
    mask = torch.zeros(6, 32, 32, dtype=torch.bool)
    mask[:, SPOT[0], SPOT[1]] = True
    assert float(average_precision(choice.explainer(images, 0).heatmap, mask).min()) == pytest.approx(1.0)


def test_the_budget_holds(monkeypatch):
    """50 forwards of each image at most, of which every one is told."""
    model, images, asked = Spot().eval(), spotted(8), []

    def counted(meter, rows, numbers):
        asked.append(len(rows))
        return scores(meter, rows, numbers)

    scores = Meter._scores
    monkeypatch.setattr(Meter, "_scores", counted)
    for budget, most in ((None, 400), (200, 200), (100, 100)):
        asked.clear()
        choice = seewhy.choose(model, images, 0, budget=budget)
        assert choice.forwards == sum(asked) <= most
        assert choice.forwards > 0.6 * most


def test_no_map_beats_the_floor_where_the_score_ignores_the_image():
    torch.manual_seed(0)
    choice = seewhy.choose(Corner().eval(), spotted(6), 0, candidates=["eigen_cam@layer", "lafam@layer"])
    assert not choice.beats_floor
    assert choice.reason.startswith("no map of this model can be told from chance here")


@pytest.mark.slow
def test_of_sixteen_images_one_half_chooses_and_the_other_is_reported():
    model = Spot().eval()
    images = spotted(16)
    images[8:, 0, SPOT[0], SPOT[1]] = 0.7  # the logit is 0.8 there, and 2 in the first half
    choice = seewhy.choose(model, images, 0, candidates=["hires_cam@layer", "eigen_cam@layer"])
    values = choice.evaluation.values["hires_cam@layer"]["insertion_minus_deletion"]
    assert len(values) == 8
    alone = seewhy.evaluate(
        model, images[8:], 0, methods=["hires_cam@layer"], metrics=["insertion_minus_deletion"]
    ).values["hires_cam@layer"]["insertion_minus_deletion"]
    torch.testing.assert_close(values, alone)
    assert len(seewhy.choose(model, images[:15], 0, candidates=["hires_cam@layer"]).evaluation.rows()[0:1]) == 1
    assert {"insertion", "deletion", "road"} <= set(choice.evaluation.metrics)


def test_the_model_is_left_as_it_was():
    model, images = Spot().train(), spotted(4)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    seewhy.choose(model, images, 0)
    assert model.training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.get_rng_state().equal(state)
    assert not any(module._forward_hooks for module in model.modules())


def test_no_candidate_gives_a_map():
    with pytest.raises(InputError, match="no candidate"):
        seewhy.choose(Spot().eval(), spotted(2), 0, candidates=["attention_relevance"])


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "least"),
    # the proof of where a transformer's tokens lie is slow under checks of every shape
    [("resnet", 0.9), ("plain", 0.9), ("mobilenet", 0.85), pytest.param("vit", 0.55, marks=pytest.mark.slow)],
)
def test_the_choice_lies_on_the_known_evidence(name, least):
    """AP on other images than those that chose; grad_cam where seewhy looks by default: 0.51, 0.94, 0.38, 0.24."""
    case = CASES[name]
    model, chosen_on, seen = case.model(), case.scenes(8, seed=700_000), case.scenes(8)
    choice = seewhy.choose(model, chosen_on.images, case.target(chosen_on))
    assert choice.beats_floor
    assert choice.forwards <= 400
    found = average_precision(choice.explainer(seen.images, case.target(seen)).heatmap, seen.truth)
    assert float(found.mean()) > least


def test_auto_is_chosen_once_for_a_model_and_shape(monkeypatch):
    from seewhy import evaluation

    asked = []

    def counted(model, inputs, *arguments, **options):
        asked.append(tuple(inputs.shape))
        return evaluation._choose.choose(model, inputs, *arguments, **options)

    monkeypatch.setattr(evaluation, "choose", counted)
    model, images = Spot().eval(), spotted(4)
    first = seewhy.explain(model, images, 0, method="auto")
    second = seewhy.Explainer(model, "auto")(images[:2], 0)
    assert asked == [(4, 3, 32, 32)]
    assert first.method == second.method
    assert second.note == first.note
    assert "insertion minus deletion" in first.note
    larger = torch.nn.functional.pad(images, (0, 8))
    seewhy.explain(model, larger, 0, method="auto")
    assert asked == [(4, 3, 32, 32), (4, 3, 32, 40)]
    expected = seewhy.explain(model, images, 0, method=first.method, layers=list(first.layers))
    assert first.heatmap.equal(expected.heatmap)


def test_auto_chooses_its_layers_itself():
    with pytest.raises(MethodError, match="auto"):
        seewhy.Explainer(Spot(), "auto", layers="layer")


def test_right_and_shifted_maps_by_the_meter():
    images = spotted(2)
    model = Spot().eval()
    with torch.no_grad():
        meter = Meter(lambda rows, numbers: model(rows)[:, 0], images, 16)
        found = meter.measure([right(2), shifted(2)], [(0, 0.0625), (1, 0.0625)])
    assert found[0].tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    assert found[1].tolist() == pytest.approx([-1.0, -1.0], abs=0.05)
