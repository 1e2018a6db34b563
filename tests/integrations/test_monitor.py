"""What is seen, what is told, and that training does not notice."""

import gc
import itertools
import random
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from seewhy.errors import InputError
from seewhy.explainer import explain
from seewhy.integrations import Monitor, to_tensorboard
from seewhy.integrations.monitor import distance
from tests.integrations.events import pixels, read
from tests.integrations.small import IMAGES, LABELS, Augmented, Looks, assert_identical, fingerprint, monitor, network


def train(model, look=lambda step: None, epochs=2):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(Augmented(), batch_size=8, shuffle=True)
    step = 0
    for _ in range(epochs):
        for images, labels in loader:
            look(step)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            look(step)  # between forward and backward, where gradients are due
            loss.backward()
            look(step)
            optimizer.step()
            step += 1


def untrained(head=0.0):
    model = network().eval()
    nn.init.constant_(model[-1].weight, head)
    return model


@pytest.mark.parametrize("every", [1, 4])
def test_training_is_bit_identical(every):
    plain, watched = network(), network()
    train(plain)
    expected = fingerprint(plain)
    watch = monitor(watched, every=every)
    train(watched, watch)
    assert_identical(fingerprint(watched), expected)
    assert watch.log.steps == list(range(0, 6, every))
    assert all(look.explanation is not None for look in watch.log)


def test_a_look_is_due_every_so_many_steps():
    """Steps may come twice (accumulated gradients) or in twos (two optimizers); a smaller one begins a new run."""
    watch = monitor(network(), every=3)
    for step in (1, 1, 2, 3, 4, 4, 6, 8, 9, 11, 0, 2, 3):
        look = watch(step)
        assert look is None or look.step == step
    assert watch.log.steps == [1, 4, 8, 11, 0, 3]
    with pytest.raises(InputError, match="every=0"):
        monitor(network(), every=0)


def test_distance_by_hand():
    """cos((3, 4), (4, 3)) = 24/25; strength does not count; nothing in common is 1; nothing at all is undefined."""
    before = torch.tensor([[[0.3, 0.4]], [[1.0, 0.5]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    after = torch.tensor([[[0.8, 0.6]], [[0.5, 0.25]], [[0.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
    moved = distance(before, after, (1, 2))
    torch.testing.assert_close(moved, torch.tensor([0.04, 0.0, 1.0, torch.nan, torch.nan]), equal_nan=True)
    several = distance(before[:4].reshape(2, 2, 1, 1, 2), after[:4].reshape(2, 2, 1, 1, 2), (1, 1, 2))
    torch.testing.assert_close(several, moved[:4].reshape(2, 2), equal_nan=True)


def test_maps_that_did_not_change_did_not_move():
    """Exactly 0, not a rounding away from it; for two targets of each image."""
    watch = Monitor(untrained(1.0), IMAGES, torch.tensor([[0, 1]] * 3), log=Looks(), every=1)
    assert watch(0).moved is None
    assert torch.equal(watch(1).moved, torch.zeros(3, 2))


def test_moved_is_from_the_look_before():
    """Against torch's own cosine similarity of heatmaps made by `explain` at the same steps."""
    model = network()
    heatmaps, watch = [], monitor(model, every=2, layers="5")

    def look(step):
        if watch(step) is not None:
            heatmaps.append(explain(model, IMAGES, LABELS, layers="5").heatmap)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(model, look, epochs=4)
    assert watch.log.steps == [0, 2, 4, 6, 8, 10]
    assert watch.log[0].moved is None
    moved = torch.stack([look.moved for look in watch.log[1:]])
    pairs = itertools.pairwise(heatmaps)
    expected = torch.stack([1 - F.cosine_similarity(a.flatten(1), b.flatten(1), eps=0) for a, b in pairs])
    torch.testing.assert_close(moved, expected, equal_nan=True, atol=1e-5, rtol=0)  # cosine similarity in float32
    assert (moved[~moved.isnan()] > 0.01).any()


def test_the_layer_stays_the_same():
    model = network()
    watch = monitor(model, every=1)
    train(model, watch)
    assert {look.explanation.layers for look in watch.log} == {watch.log[0].explanation.layers}


def test_an_untrained_head_ends_no_training():
    """Zero weights: no gradient anywhere. It is told, and so is the first map, which has nothing to be compared to."""
    model = untrained()
    watch = monitor(model, every=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = watch(0)
        nn.init.ones_(model[-1].weight)
        second, third = watch(1), watch(2)
    assert (first.explanation, first.moved, first.blank) == (None, None, 1.0)
    assert "gradient is zero at every layer" in first.problem
    assert (second.moved, second.blank, second.problem) == (None, 0.0, "")
    assert torch.equal(third.moved, torch.zeros(3))


def test_maps_with_nothing_positive_are_blank():
    """Class 0 has a head of -1, classes 1 and 2 of 1, and the layer is behind a ReLU: a third of the maps is blank."""
    model = untrained(1.0)
    nn.init.constant_(model[-1].weight[:1], -1)
    watch = monitor(model, every=1, layers="7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        looks = watch(0), watch(1)
    assert [look.blank for look in looks] == pytest.approx([1 / 3, 1 / 3])
    assert looks[1].moved[LABELS != 0].tolist() == [0, 0]
    assert looks[1].moved[LABELS == 0].isnan().tolist() == [True]


def test_a_run_that_diverged_goes_on():
    model = untrained(torch.nan)
    watch = monitor(model, every=1)
    assert [watch(step).blank for step in range(2)] == [1.0, 1.0]


def test_other_errors_come_through():
    model = network()
    watch = monitor(model)
    model.register_forward_hook(lambda *_: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        watch(0)


def test_tensorboard_log(tmp_path):
    """Step 0 has no gradient; at step 1 two maps of three are there, at step 2 they have not moved."""
    model = untrained()
    with SummaryWriter(tmp_path) as writer:
        watch = monitor(model, every=1, log=to_tensorboard(writer, IMAGES))
        watch(0)
        nn.init.ones_(model[-1].weight)
        nn.init.constant_(model[-1].weight[:1], -1)
        looks = watch(1), watch(2)
    events = read(tmp_path)
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars == {
        "seewhy/blank": [(0, 1.0), (1, pytest.approx(1 / 3)), (2, pytest.approx(1 / 3))],
        "seewhy/moved": [(2, 0.0)],
    }
    (problem,) = events.Tensors("seewhy/problem/text_summary")
    assert problem.step == 0
    assert b"gradient is zero" in problem.tensor_proto.string_val[0]
    assert sorted(events.Tags()["images"]) == [f"seewhy/overlays/{number}" for number in range(3)]
    assert [event.step for event in events.Images("seewhy/overlays/1")] == [1, 2]
    assert looks[0].explanation is not None


def test_overlays_in_the_log(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        look = monitor(untrained(1.0), log=to_tensorboard(writer, IMAGES, tag="why", alpha=0.25))(0)
    events = read(tmp_path)
    for number, picture in enumerate(look.explanation.overlay(IMAGES, alpha=0.25)):
        np.testing.assert_array_equal(pixels(events, f"why/overlays/{number}"), picture)


def resident():
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_memory_is_flat_over_500_steps():
    """No explanation outlives its look, the number of tensors stays the same, and the process does not grow."""
    model = network()
    seen = []

    def log(look):
        seen.append(weakref.ref(look.explanation))
        seen.append(weakref.ref(look.explanation.outputs))

    watch = monitor(model, every=1, log=log)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    counts = {}
    for step in range(500):
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()
        watch(step)
        if step in (100, 499):
            gc.collect()
            counts[step] = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()), resident()
    assert len(seen) == 1000
    assert [reference() for reference in seen] == [None] * 1000
    assert counts[499][0] == counts[100][0]
    assert counts[499][1] - counts[100][1] < 8 * 2**20  # the allocator's own: 0.6 MB when tried


def test_importing_is_light():
    """No framework, no TensorBoard."""
    heavy = ("lightning", "pytorch_lightning", "transformers", "tensorboard", "matplotlib")
    program = f"import sys, seewhy.integrations; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "[]\n"
