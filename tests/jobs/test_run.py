"""A run in one process: what the rows hold, what is refused, what goes wrong and how it goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from typer.testing import CliRunner

import seewhy
from seewhy.apps.cli import app
from seewhy.errors import InputError
from seewhy.models import Loaded
from tests.jobs.small import FILE, LABELS, PREPROCESS, assert_same, loaded, net, photos, picture, run

HOLDER = """
import fcntl, os, sys, time
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
if os.fork() == 0:  # a data worker
    time.sleep(30)
print(flush=True)
time.sleep(30)
"""


@pytest.fixture
def folder(tmp_path):
    return photos(tmp_path / "photos", 12, bad=True)


def test_a_row_holds_what_explain_gives(tmp_path):
    source = photos(tmp_path / "photos", 6)
    table = run(source, tmp_path / "why").table
    names = [source / "cat/000.png", source / "cat/003.png", source / "dog/001.png", source / "dog/004.png"]
    explanation = seewhy.explain(loaded(), [str(name) for name in names])
    likely = explanation.outputs.softmax(1)
    for number, name in enumerate(names):
        row = table.row(number)
        grid = explanation.maps["3"][number]
        assert row["key"] == str(name.relative_to(source))
        assert row["sha256"] == hashlib.sha256(name.read_bytes()).hexdigest()
        assert (row["label"], row["status"], row["error"]) == (name.parent.name, "ok", None)
        assert (row["method"], row["layers"]) == ("grad_cam", ["3"])
        index = int(likely[number].argmax())
        assert row["predicted"] == row["target"] == LABELS[index]
        assert row["probability"] == pytest.approx(float(likely[number, index]), abs=1e-6)
        assert row["score"] == pytest.approx(float(explanation.scores[number]), abs=1e-6)
        assert row["map_shape"] == list(grid.shape)
        torch.testing.assert_close(table[number].maps["3"][0], grid / grid.abs().max(), atol=1e-3, rtol=0)
        shares = grid.clamp(min=0).flatten() / grid.clamp(min=0).sum()
        assert row["entropy"] == pytest.approx(float(torch.special.entr(shares).sum()), abs=1e-3)
        (x0, y0, x1, y1) = explanation.boxes(0.5)[number][0].tolist()
        frame = PREPROCESS.frame((48, 40))  # the photograph is 48 x 40, the input its middle
        scale = (frame[2] - frame[0]) / 32
        expected = [frame[0] + x0 * scale, frame[1] + y0 * scale, frame[0] + x1 * scale, frame[1] + y1 * scale]
        assert row["boxes"][0] == [round(side) for side in expected]


def test_the_columns(tmp_path):
    table = run(photos(tmp_path / "photos", 3), tmp_path / "why").table
    assert table.columns == [
        "key", "path", "sha256", "label", "predicted", "probability", "target", "score", "layers", "method", "map",
        "map_shape", "boxes", "entropy", "in_box", "check", "seconds", "status", "error",
    ]  # fmt: skip
    (part,) = (tmp_path / "why" / "parts").iterdir()
    described = pq.ParquetFile(part)
    assert described.metadata.row_group(0).column(0).compression == "ZSTD"
    assert str(described.schema_arrow.field("map").type) == "list<element: halffloat>"


class Left(nn.Module):
    """How bright the left half is. Its layer returns the image, so that the map is known."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(3, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])

    def forward(self, images):
        return self.head(self.layer(images)[..., :16].mean((2, 3)))


def test_the_share_of_the_heat_in_the_manifests_box(tmp_path):
    Path(tmp_path / "list.csv").write_text(
        "path,label,x0,y0,x1,y1\nwhite.png,1,0,0,32,16\nwhite.png,1,0,0,8,32\nwhite.png,1,,,,\n"
    )
    from PIL import Image

    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    model = Loaded(Left().eval(), PREPROCESS, ("left", "none"), "left")
    table = run(
        tmp_path / "list.csv", tmp_path / "why", model=model, layers="layer", method="grad_cam_elementwise"
    ).table
    assert table["in_box"].tolist()[:2] == pytest.approx([0.5, 0.5])  # all heat is in the left half, evenly
    assert table.row(2)["in_box"] is None
    assert table["label"].tolist() == ["none"] * 3
    assert table["x1"].tolist()[:2] == [32, 8]
    assert [box for row in range(2) for box in table.row(row)["boxes"]] == [[0, 0, 16, 32]] * 2


def test_pictures_that_are_none_become_rows(folder, tmp_path):
    found = run(folder, tmp_path / "why")
    assert (found.images, found.new, found.errors) == (15, 15, 3)
    bad = found.table.filter(status="error")
    assert bad["key"].tolist() == ["cat/cut.png", "dog/empty.png", "owl/words.png"]
    assert [why in error for why, error in zip(("damaged", "empty", "not a picture"), bad["error"], strict=True)] == [
        True
    ] * 3
    assert bad.row(0)["sha256"] == hashlib.sha256((folder / "cat" / "cut.png").read_bytes()).hexdigest()
    good = photos(tmp_path / "good", 12)
    one_by_one = run(good, tmp_path / "one", batch_size=1, part_size=1).table
    for key in one_by_one["key"]:
        beside, alone = found.table.filter(key=key), one_by_one.filter(key=key)
        torch.testing.assert_close(beside[0].maps, alone[0].maps, atol=1e-3, rtol=0)


def test_a_picture_that_is_too_large_or_missing_becomes_a_row(tmp_path, monkeypatch):
    photos(tmp_path / "photos", 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 48)
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "huge.png")
    names = [tmp_path / "photos" / name for name in ("cat/000.png", "huge.png", "gone.png", "dog/001.png")]
    found = run(names, tmp_path / "why", workers=0)
    assert (found.images, found.errors) == (4, 2)
    assert found.table["status"].tolist() == ["ok", "error", "error", "ok"]
    assert "more pixels than is safe to decode" in found.table.row(1)["error"]
    assert "there is no such file" in found.table.row(2)["error"]


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the pictures.*\n.*the file is empty"):
        run(tmp_path / "photos", tmp_path / "why")


def test_a_second_run_does_nothing_twice(folder, tmp_path):
    first = run(folder, tmp_path / "why")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "why" / "parts").iterdir()}
    again = run(folder, tmp_path / "why")
    assert (again.images, again.new, again.errors) == (15, 0, 3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "why" / "parts").iterdir()} == times
    assert_same(first.table, again.table)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"method": "layer_cam"}, "method: 'grad_cam' there, 'layer_cam' now"),
        ({"target": 1}, "target: None there, 1 now"),
        ({"seed": 3}, "seed: 0 there, 3 now"),
        ({"preprocess": replace(PREPROCESS, resize=40)}, "preprocess.resize: 32 there, 40 now"),
        ({"layers": "0"}, "options.layers: None there, '0' now"),
        ({"model": Loaded(net(4), PREPROCESS, None, "small")}, "weights: "),
    ],
)
def test_another_plan_is_refused_and_the_line_is_named(tmp_path, change, line):
    source = photos(tmp_path / "photos", 3)
    run(source, tmp_path / "why")
    with pytest.raises(InputError) as caught:
        run(source, tmp_path / "why", **change)
    got = str(caught.value).split("got: ")[1].split("\n")[0]
    assert line in got
    assert got.count(" there, ") == 1


def test_another_source_is_refused(folder, tmp_path):
    run(folder, tmp_path / "why")
    (folder / "cat" / "003.png").unlink()
    with pytest.raises(InputError, match=r"source\.samples: 15 there, 14 now"):
        run(folder, tmp_path / "why")


def test_random_weights_are_those_of_the_seed(tmp_path):
    source = photos(tmp_path / "photos", 3)
    state = torch.get_rng_state()
    options = {
        "model": "torchvision:squeezenet1_1",
        "weights": "none",
        "preprocess": PREPROCESS,
        "layers": "features.3",
    }
    tables = [run(source, tmp_path / str(n), seed=seed, **options).table for n, seed in enumerate((0, 0, 1))]
    assert_same(tables[0], tables[1])
    assert tables[0].plan.weights != tables[2].plan.weights
    assert torch.equal(torch.get_rng_state(), state)


def test_two_runs_at_once_are_refused_and_the_lock_goes_with_its_process(tmp_path):
    source, out = photos(tmp_path / "photos", 3), tmp_path / "why"
    out.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out / "lock")], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InputError, match="another run is writing here"):
            run(source, out)
        holder.kill()
        holder.wait()  # the process that it forked is still there
        assert run(source, out).images == 3
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_two_runs_at_once_in_one_process_are_refused(tmp_path):
    source, refused = photos(tmp_path / "photos", 3), []

    def again(event):
        if event["event"] == "batch":
            with pytest.raises(InputError, match="another run is writing here"):
                run(source, tmp_path / "why")
            refused.append(event)

    assert run(source, tmp_path / "why", listener=again).images == 3
    assert refused


class Hungry(nn.Module):
    """Out of memory for more than `most` images."""

    def __init__(self, most):
        super().__init__()
        self.net, self.most, self.sizes = net(), most, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("too many\nimages")
        return self.net(images)


def test_out_of_memory_halves_the_batch(folder, tmp_path):
    model = Hungry(2)
    found = run(folder, tmp_path / "why", model=Loaded(model, PREPROCESS, LABELS, "hungry"), batch_size=8)
    assert found.errors == 3
    assert model.sizes.count(8) <= 1  # what was too much is not tried again
    plain = run(folder, tmp_path / "plain", batch_size=2).table
    for number in range(15):
        row, other = found.table.row(number), plain.row(number)
        assert (row["key"], row["predicted"], row["status"]) == (other["key"], other["predicted"], other["status"])


def test_out_of_memory_for_one_image_is_its_error(tmp_path):
    class Full(Hungry):
        def forward(self, images):
            if images.mean((1, 2, 3)).amax() > 0.9:
                raise torch.OutOfMemoryError("too many\nimages")
            return self.net(images)

    dark, bright = torch.zeros(3, 32, 32), torch.ones(3, 32, 32)
    found = run(
        [(dark, 0), (bright, 1), (dark, 2)], tmp_path / "why", model=Loaded(Full(9), PREPROCESS, LABELS, "full")
    )
    assert found.table["status"].tolist() == ["ok", "error", "ok"]
    assert found.table.row(1)["error"] == "out of memory: too many images"


def test_a_full_disk_loses_nothing(folder, tmp_path, monkeypatch):
    whole = run(folder, tmp_path / "whole").table
    write, written = pq.write_table, []

    def full(table, where, **options):
        written.append(where)
        if len(written) == 2:
            Path(where).write_bytes(b"half a par")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, where, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        run(folder, tmp_path / "why")
    assert [path.name for path in (tmp_path / "why" / "parts").iterdir()] == ["part-000000.parquet"]
    assert_same(run(folder, tmp_path / "why").table, whole)


def test_what_a_killed_run_began_to_write_is_removed(folder, tmp_path):
    parts = tmp_path / "why" / "parts"
    parts.mkdir(parents=True)
    (parts / ".0123456789abcdef.parquet").write_bytes(b"half a par")
    run(folder, tmp_path / "why")
    assert sorted(path.name for path in parts.iterdir()) == ["part-000000.parquet", "part-000001.parquet"]


@pytest.fixture(autouse=True)
def interruptible():
    """A process that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(event):
    if event["event"] == "batch" and event["done"] == 4:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_finishes_the_part_in_hand(folder, tmp_path):
    whole = run(folder, tmp_path / "whole").table
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "why", listener=press, workers=1)
    table = seewhy.jobs.open(tmp_path / "why")
    assert (table.images, table.complete) == (8, False)
    assert "unfinished: 8 of 15 images" in repr(table)
    assert table["key"].tolist() == whole["key"].tolist()[:8]
    events = [json.loads(line)["event"] for line in (tmp_path / "why" / "log.jsonl").read_text().splitlines()]
    assert events == ["start", "part", "end"]
    again = run(folder, tmp_path / "why")
    assert again.new == 7
    assert_same(again.table, whole)


def test_a_data_worker_that_vanishes_loses_nothing(folder, tmp_path):
    """The system kills one for memory, say: the run ends with an error, and another one goes on."""

    def kill(event):
        if event["event"] == "part":
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    whole = run(folder, tmp_path / "whole").table
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        run(folder, tmp_path / "why", listener=kill, workers=1)
    again = run(folder, tmp_path / "why", workers=1)
    assert again.new == 7  # a part of eight was written
    assert_same(again.table, whole)


class Shots(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for number in range(self.count):
            yield {"image": picture(number), "label": LABELS[number % 3], "key": f"shot {number}"}


@pytest.mark.parametrize("count", [14, 16])
def test_a_stream_goes_on_where_it_stopped(tmp_path, count):
    whole = run(Shots(count), tmp_path / "whole").table
    assert (whole.images, whole.complete) == (count, True)
    assert whole["key"].tolist() == [f"shot {number}" for number in range(count)]
    with pytest.raises(KeyboardInterrupt):
        run(Shots(count), tmp_path / "why", listener=press)
    assert not seewhy.jobs.open(tmp_path / "why").complete
    again = run(Shots(count), tmp_path / "why")
    assert again.new == count - 8
    assert_same(again.table, whole)
    assert run(Shots(count), tmp_path / "why").new == 0


def test_what_a_dataset_raises_in_a_stream_comes_through(tmp_path):
    class Broken(Shots):
        def __iter__(self):
            yield from super().__iter__()
            raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="the camera is gone"):
        run(Broken(70), tmp_path / "why")


def test_a_loader_of_tensors(tmp_path):
    images = [PREPROCESS(picture(number)) for number in range(6)]
    table = run(DataLoader(list(zip(images, [0, 1, 2] * 2, strict=True)), batch_size=4), tmp_path / "why").table
    assert table["label"].tolist() == list(LABELS) * 2
    expected = seewhy.explain(loaded(), torch.stack(images))
    assert table["score"].tolist() == pytest.approx(expected.scores.tolist(), abs=1e-5)


def test_data_workers_and_devices_change_nothing(folder, tmp_path, monkeypatch):
    plain = run(folder, tmp_path / "plain").table
    monkeypatch.setattr("seewhy.jobs.running._devices", lambda _: [torch.device("cpu")] * 2)
    assert_same(run(folder, tmp_path / "why", workers=2).table, plain)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("label", ["cat", "dog"]), ([2, 0], ["owl", "cat"] * 2), ("dog", ["dog"] * 2), ("top:3", None)],
)
def test_targets(tmp_path, target, expected):
    source = photos(tmp_path / "photos", 2)
    table = run(source, tmp_path / "why", target=target).table
    outputs = loaded().module(torch.stack([PREPROCESS(picture(number)) for number in range(2)])).detach()
    if expected is None:
        expected = [LABELS[index] for row in outputs.argsort(1, descending=True) for index in row.tolist()]
    assert table["target"].tolist() == expected
    rows = len(expected) // 2
    scores = [float(outputs[number // rows, LABELS.index(name)]) for number, name in enumerate(expected)]
    assert table["score"].tolist() == pytest.approx(scores, abs=1e-5)


def test_a_label_that_is_no_class_is_an_error_of_its_sample(tmp_path):
    images = [(PREPROCESS(picture(number)), label) for number, label in enumerate(["cat", "yak", "dog"])]
    table = run(images, tmp_path / "why", target="label").table
    assert table["status"].tolist() == ["ok", "error", "ok"]
    assert "its label is no class of the model" in table.row(1)["error"]


def test_auto_is_chosen_once_and_pinned(folder, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "why", method="auto", listener=press)
    plan = seewhy.jobs.open(tmp_path / "why").plan
    assert plan.method == "auto"
    assert plan.found.method in plan.found.reason
    monkeypatch.setattr("seewhy.evaluation.choose", None)
    table = run(folder, tmp_path / "why", method="auto").table
    assert set(table.filter(status="ok")["method"]) == {plan.found.method}


def test_methods_that_draw_give_the_same_map_whatever_came_before(folder, tmp_path):
    options = {"method": "rise", "masks": 40}
    whole = run(folder, tmp_path / "whole", **options).table
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "why", listener=press, **options)
    assert_same(run(folder, tmp_path / "why", **options).table, whole)


def test_a_check_is_a_column(tmp_path):
    source = photos(tmp_path / "photos", 2)
    table = run(source, tmp_path / "why", check=True).table
    names = [str(source / "cat/000.png"), str(source / "dog/001.png")]
    model = loaded()
    expected = seewhy.explain(model, names).check().p_value
    assert table["check"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_command_line(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(FILE)
    command = ["run", "photos", "--out", "why", "--model", "model.py:build", "--batch-size", "4", "--workers", "0"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 1, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "batch", "batch", "batch", "batch", "part", "end"]
    assert (events[-1]["done"], events[-1]["errors"], events[-1]["complete"]) == (15, 3, True)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "15 images are explained in why, 0 of them now" in result.stdout
    result = CliRunner().invoke(app, [*command, "--method", "layer_cam"])
    assert result.exit_code == 2
    assert "method: 'grad_cam' there, 'layer_cam' now" in result.stderr


def test_the_command_line_draws_overlays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"), 3)
    Path("model.py").write_text(FILE)
    command = ["run", "photos", "--out", "why", "--model", "model.py:build", "--workers", "0", "--overlays", "all"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert len(list(Path("why/overlays").rglob("*.jpg"))) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part_size": 6}, "a part is made of whole batches"),
        ({"engine": "spark"}, "there is no such engine"),
        ({"overlays": "best:3"}, "these are no rows"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(photos(tmp_path / "photos", 2), tmp_path / "why", **options)
    assert not list((tmp_path / "why").rglob("*.parquet"))


def test_results_go_to_this_machine(tmp_path):
    with pytest.raises(InputError, match="a folder of this machine"):
        run(photos(tmp_path / "photos", 2), "s3://bucket/why")


def test_importing_seewhy_stays_light():
    code = "import sys, seewhy; dir(seewhy); assert not {'torch', 'pyarrow', 'seewhy.jobs'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
