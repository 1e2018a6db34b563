"""Methods measured on a model: the values are the metrics', the intervals the bootstrap's, and files hold them."""

from __future__ import annotations

import csv
import json
import math
import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import seewhy
from seewhy import metrics
from seewhy.errors import InputError, InputTypeError, MethodError, MetricError, MissingExtra
from seewhy.evaluation import Evaluation
from tests.evaluation.planted import SIZE, Spot, right, shifted, spotted


def evaluate(images, **options):
    return seewhy.evaluate(Spot().eval(), images, 0, **options)


def made(**values):
    """An evaluation of these values by one metric."""
    tensors = {name: {"road": torch.tensor(numbers)} for name, numbers in values.items()}
    return Evaluation(tensors, {"road": "higher"}, dict.fromkeys(values, 0.0))


def test_values_are_those_of_the_metrics():
    model, images, maps = Spot().eval(), spotted(3), right(3)
    found = evaluate(images, methods=(), maps={"mine": maps}, metrics=("insertion", "deletion", "sparseness"))

    def score(rows):
        with torch.no_grad():
            return model(rows).softmax(1)[:, 0]

    torch.testing.assert_close(found.values["mine"]["insertion"], metrics.insertion(score, images, maps))
    torch.testing.assert_close(found.values["mine"]["deletion"], metrics.deletion(score, images, maps))
    torch.testing.assert_close(found.values["mine"]["sparseness"], metrics.sparseness(maps))


def test_logits_where_they_are_asked_for():
    model, images, maps = Spot().eval(), spotted(2), right(2)
    found = evaluate(images, methods=(), maps={"mine": maps}, metrics=("deletion",), of="logit")

    def score(rows):
        with torch.no_grad():
            return model(rows)[:, 0]

    torch.testing.assert_close(found.values["mine"]["deletion"], metrics.deletion(score, images, maps))


def test_names_methods_callables_and_maps_compete_on_equal_terms():
    """All of these give the same map of this model, and so the same value."""
    images = spotted(2)

    def by_hand(model, inputs, target):
        return seewhy.explain(model, inputs, target, method="hires_cam", layers="layer").scaled("none")

    found = evaluate(
        images,
        methods=["hires_cam@layer", seewhy.methods.get("hires_cam"), by_hand],
        maps={"given": by_hand(Spot().eval(), images, 0)},
        metrics=("insertion",),
        layers="layer",
    )
    assert found.methods == ("hires_cam@layer", "hires_cam", "by_hand", "given", "random", "centre")
    first = found.values["hires_cam@layer"]["insertion"]
    for name in ("hires_cam", "by_hand", "given"):
        torch.testing.assert_close(found.values[name]["insertion"], first)


def test_two_of_one_name_are_numbered():
    found = evaluate(spotted(1), methods=["hires_cam@layer", "hires_cam@layer"], metrics=("sparseness",))
    assert found.methods[:2] == ("hires_cam@layer", "hires_cam@layer (2)")


def test_a_loader_gives_what_its_images_give_at_once():
    images = spotted(5)
    options = {"methods": ["hires_cam@layer"], "metrics": ("insertion", "sparseness")}
    whole = evaluate(images, **options)
    labels = torch.zeros(5, dtype=torch.long)
    loader = DataLoader(TensorDataset(images, labels), batch_size=2)
    for target in (0, "labels"):
        parts = seewhy.evaluate(Spot().eval(), loader, target, **options)
        for metric in options["metrics"]:
            name = "hires_cam@layer"
            torch.testing.assert_close(parts.values[name][metric], whole.values[name][metric])
    with pytest.raises(InputTypeError, match="single batch"):
        seewhy.evaluate(Spot().eval(), loader, labels, **options)
    with pytest.raises(InputError, match="single batch"):
        seewhy.evaluate(Spot().eval(), loader, 0, methods=(), maps={"mine": right(2)}, metrics=("sparseness",))
    with pytest.raises(InputError, match="no images"):
        seewhy.evaluate(Spot().eval(), iter([]), 0)


def test_the_interval_is_that_of_a_slow_bootstrap():
    """The 2.5th and 97.5th percentile of the means of 5,000 draws, made one at a time."""
    values = [0.1, 0.5, 0.2, 0.9, 0.4, 0.6, 0.3]
    row = made(one=values).row("one", "road")
    assert row.mean == pytest.approx(sum(values) / 7)
    generator = torch.Generator().manual_seed(5)
    means = sorted(
        sum(values[int(number)] for number in torch.randint(7, (7,), generator=generator)) / 7 for _ in range(5000)
    )
    assert row.low == pytest.approx(means[125], abs=0.01)
    assert row.high == pytest.approx(means[4875], abs=0.01)


def test_undefined_values_are_left_out_and_one_image_has_no_interval():
    row = made(one=[0.25, math.nan, 0.75]).row("one", "road")
    assert (row.mean, row.images) == (0.5, 2)
    row = made(one=[0.25]).row("one", "road")
    assert row.mean == 0.25
    assert math.isnan(row.low)
    assert math.isnan(row.high)
    assert math.isnan(made(one=[math.nan, math.nan]).row("one", "road").mean)


def test_ties_are_said():
    """`a` beats `b` on every image by 0.1 though their ranges overlap; `c` is better and worse than `a` in turn."""
    spread = [0.1, 0.9, 0.3, 0.7, 0.5, 0.2]
    found = made(
        a=spread,
        b=[value - 0.1 for value in spread],
        c=[value + sign * 0.2 for value, sign in zip(spread, (1, -1, 1, -1, 1, -1), strict=True)],
        random=[-1.0] * 6,
        centre=[-1.0] * 6,
    )
    assert ("a", "b") not in found.tied("road")
    assert {("a", "c"), ("c", "a")} & set(found.tied("road"))
    assert "cannot be told from" in found.table()
    assert "from the floor" not in found.table()
    assert "from the floor" in made(a=[0.0, 1.0, 0.0], random=[1.0, 0.0, 0.0], centre=[-9.0] * 3).table()


def test_a_right_map_beats_the_floor_and_a_shifted_one_does_not():
    found = evaluate(
        spotted(6), methods=(), maps={"right": right(6), "shifted": shifted(6)}, metrics=("insertion_minus_deletion",)
    )
    metric = "insertion_minus_deletion"
    assert found.ranking(metric)[0] == "right"
    for name in ("random", "centre"):
        assert found.difference("right", name, metric).low > 0
        assert found.difference("shifted", name, metric).high < 0.05


def test_a_map_that_is_not_finite_gives_nan_for_its_image_alone():
    maps = right(3)
    maps[1, 0, 0] = math.nan
    values = evaluate(spotted(3), methods=(), maps={"mine": maps}, metrics=("insertion",)).values["mine"]["insertion"]
    assert values.isfinite().tolist() == [True, False, True]


def test_a_constant_map_never_means_more_than_chance():
    """All pixels go in at once, so insertion less deletion is nothing: the two curves mirror each other."""
    maps = {"flat": torch.ones(2, SIZE, SIZE)}
    found = evaluate(spotted(2), methods=(), maps=maps, metrics=("sparseness", "insertion_minus_deletion"))
    values = found.values["flat"]["insertion_minus_deletion"]
    assert bool((values.isnan() | (values.abs() < 0.05)).all())


def test_what_does_not_fit_is_refused():
    images = spotted(2)
    with pytest.raises(MetricError, match="no metric 'beauty'"):
        evaluate(images, metrics=("beauty",))
    with pytest.raises(MetricError, match="no metric was given"):
        evaluate(images, metrics=())
    with pytest.raises(InputError, match="do not fit the images"):
        evaluate(images, methods=(), maps={"small": torch.ones(2, 8, 8)})
    with pytest.raises(InputTypeError, match="did not return a tensor"):
        evaluate(images, methods=[lambda model, inputs, target: None])
    with pytest.raises(MethodError, match=r"given by its name(.|\n)*7(.|\n)*or a function"):
        evaluate(images, methods=[7])


def test_a_method_that_refuses_the_model_says_why():
    found = evaluate(spotted(2), methods=["attention_rollout", "hires_cam@layer"], metrics=("sparseness",))
    assert found.values["attention_rollout"]["sparseness"].isnan().all()
    assert "attention_rollout: " in found.table()
    assert found.ranking("sparseness")[-1] == "attention_rollout"


@pytest.mark.slow
def test_tables_figures_and_files(tmp_path, monkeypatch):
    found = evaluate(spotted(3), methods=["hires_cam@layer"], metrics=("insertion", "deletion"))
    lines = found.table().splitlines()
    assert lines[0].split()[0] == "method"
    assert lines[0].count("is better") == 2
    assert str(found) == found.table()
    assert found._repr_html_().count("<tr>") == 4
    figure = found.figure()
    assert len(figure.axes[0].texts) == 3 * 2
    with found.save(tmp_path / "values.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert float(rows[0]["mean"]) == found.row("hires_cam@layer", "insertion").mean
    content = json.loads(found.save(tmp_path / "values.json").read_text())
    assert content["values"]["hires_cam@layer"]["deletion"] == found.values["hires_cam@layer"]["deletion"].tolist()
    with pytest.raises(InputError, match="unknown file ending"):
        found.save(tmp_path / "values.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="jobs"):
        found.save(tmp_path / "values.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["values.csv", "values.json"]


def test_a_parquet_file_holds_the_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = evaluate(spotted(3), methods=["hires_cam@layer"], metrics=("insertion", "deletion"))
    kept = parquet.read_table(found.save(tmp_path / "values.parquet")).to_pylist()
    assert [entry["method"] for entry in kept] == [name for name in found.methods for _ in range(2)]
    assert [entry["mean"] for entry in kept] == [row.mean for row in found.rows()]


def test_the_default_competes_under_its_own_name():
    found = evaluate(spotted(2), methods=["default", "grad_cam"], metrics=("insertion",))
    assert found.values["default"]["insertion"].equal(found.values["grad_cam"]["insertion"])


def test_the_same_call_gives_the_same_values():
    model, images = Spot().eval(), spotted(2)
    state = torch.get_rng_state()
    options = {"methods": ["random_cam@layer"], "metrics": ("insertion",)}
    one, two = (seewhy.evaluate(model, images, 0, **options) for _ in range(2))
    assert one.values["random_cam@layer"]["insertion"].equal(two.values["random_cam@layer"]["insertion"])
    assert torch.get_rng_state().equal(state)
