"""What is explained: class scores out of any model's output, by numbers."""

from __future__ import annotations

import functools
import math
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy import Category, Contrast, Probability, targets
from seewhy.errors import GradientError, OutputError, SeewhyError, TargetError, TargetTypeError, TargetWarning

# the small models below speak against some targets all over the image, which is what their maps should say
pytestmark = pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")

# two images, four classes; image 0 is of class 1, image 1 of class 3
OUTPUTS = torch.tensor([[1.0, 4.0, 2.0, -3.0], [0.5, -1.0, 0.0, 2.5]])
LABELS = ["tabby, tabby cat", "tiger cat", "dog", "Great White Shark, white shark, man-eater"]


def scores(target: Any, outputs: Any = OUTPUTS, batch: int = 2, labels: Any = LABELS) -> Any:
    return targets.resolve(target, outputs, targets.Context(batch, labels=labels))(outputs)


def image_of(target: Any) -> list[Any]:
    return targets.resolve(target, OUTPUTS, targets.Context(2, labels=LABELS)).index.tolist()


# which class


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(None, [4, 2.5], id="predicted"),
        pytest.param(2, [2, 0], id="one class for all"),
        pytest.param(0, [1, 0.5], id="class 0 is a class"),
        pytest.param([2, 0], [2, 0.5], id="a list, one per image"),
        pytest.param((3, 1), [-3, -1], id="a tuple, one per image"),
        pytest.param(torch.tensor([1, 2]), [4, 0], id="(B,)"),
        pytest.param(torch.tensor([1, 2], dtype=torch.uint8), [4, 0], id="(B,) uint8"),
        pytest.param(torch.tensor(3), [-3, 2.5], id="a tensor without dimensions"),
        pytest.param([torch.tensor(1), torch.tensor(2)], [4, 0], id="a list of tensors"),
        pytest.param(torch.tensor([[0, 1], [3, 2]]), [[1, 4], [2.5, 0]], id="(B, T)"),
        pytest.param([[0, 1, 1], [3, 2, 0]], [[1, 4, 4], [2.5, 0, 0.5]], id="lists, T per image"),
        pytest.param([[2], [2]], [[2], [0]], id="T = 1"),
        pytest.param(np.array([1, 2]), [4, 0], id="numpy (B,)"),
        pytest.param(np.array([[1], [2]], dtype=np.uint8), [[4], [0]], id="numpy (B, 1) uint8"),
        pytest.param([np.int64(1), np.int32(2)], [4, 0], id="numpy ints in a list"),
        pytest.param("dog", [2, 0], id="a label"),
        pytest.param(["dog", "tabby"], [2, 0.5], id="labels, one per image"),
        pytest.param([["dog", 1], [3, "tabby"]], [[2, 4], [2.5, 0.5]], id="labels and numbers, T per image"),
    ],
)
def test_class_target_picks_the_score(target, expected):
    assert scores(target).tolist() == expected
    assert scores(Category(target)).tolist() == expected


def test_a_numpy_int_is_a_class():
    assert scores(np.int64(2)).tolist() == [2, 0]
    assert scores(np.uint8(3)).tolist() == [-3, 2.5]
    assert scores(np.array(1)).tolist() == [4, -1]


def test_predicted_class_stays_when_the_output_changes():
    target = targets.resolve(None, OUTPUTS, targets.Context(2))
    assert target == Category(target.index)
    assert target.index.tolist() == [1, 3]
    assert target(-OUTPUTS).tolist() == [-4, -2.5]


@pytest.mark.parametrize("kind", [Category, Probability, Contrast])
def test_predicted_class_is_made_definite_in_every_kind_of_target(kind):
    target = targets.resolve(kind(), OUTPUTS, targets.Context(2))
    assert isinstance(target, kind)
    assert target.index.tolist() == [1, 3]


def test_one_class_is_spelt_out_for_each_image():
    assert image_of(2) == [2, 2]
    assert image_of("dog") == [2, 2]


@pytest.mark.parametrize("kind", [Category, Probability, Contrast])
def test_a_target_can_be_called_without_being_resolved(kind):
    """On its own it picks the predicted class of whatever output it is given, or the indices it holds."""
    assert kind()(OUTPUTS).tolist() == kind([1, 3])(OUTPUTS).tolist() == kind(torch.tensor([1, 3]))(OUTPUTS).tolist()
    assert kind(2)(OUTPUTS).tolist() == kind([2, 2])(OUTPUTS).tolist()
    assert kind([[1], [3]])(OUTPUTS).tolist() == kind([1, 3])(OUTPUTS)[:, None].tolist()


# by label


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("tiger cat", 1),
        ("Tiger Cat", 1),
        ("  dog ", 2),
        ("tabby, tabby cat", 0),
        ("tabby", 0),
        ("tabby cat", 0),
        ("white shark", 3),
        ("great white shark", 3),
        ("MAN-EATER", 3),
        ("tiger", 1),
        ("shark", 3),
        ("do", 2),
    ],
)
def test_label_exact_then_one_of_its_names_then_a_part(text, index):
    assert targets.find_label(text, LABELS) == index


def test_a_whole_label_wins_over_a_name_a_name_over_a_word_a_word_over_a_part():
    labels = ["hot dog", "dog", "hound, dog", "basset hound", "houndstooth cloth", "bassets"]
    assert targets.find_label("dog", labels) == 1
    assert targets.find_label("hound", labels) == 2
    assert targets.find_label("basset", labels) == 3
    assert targets.find_label("stooth", labels) == 4


def test_punctuation_in_a_label_is_not_a_pattern():
    assert targets.find_label("c++ (book)", ["c book", "c++ (book), manual"]) == 1
    with pytest.raises(TargetError, match="no class is called"):
        targets.find_label("c.*", ["c book", "c++ (book), manual"])


def test_ambiguous_label_lists_what_it_fits():
    with pytest.raises(TargetError, match=r"'cat' fits several classes") as caught:
        targets.find_label("cat", LABELS)
    assert "got: 0 (tabby, tabby cat), 1 (tiger cat)\n" in str(caught.value)
    assert "do: pass one of the indices" in str(caught.value)


def test_a_name_that_two_classes_share_is_ambiguous():
    """ImageNet has two cranes."""
    with pytest.raises(TargetError, match=r"got: 0 \(crane\), 2 \(crane\)"):
        targets.find_label("crane", ["crane", "heron", "crane"])


def test_ambiguous_label_lists_all_that_it_fits():
    with pytest.raises(TargetError, match=r"got: 0 \(cat 0\), .*, 39 \(cat 39\) and 2 more\n"):
        targets.find_label("cat", [f"cat {number}" for number in range(42)])


def test_matching_labels_are_those_of_the_strictest_reading():
    labels = ["hot dog", "dog", "hound, dog", "basset hound", "houndstooth cloth"]
    assert targets.matching_labels("Dog", labels) == [1]
    assert targets.matching_labels("hound", labels) == [2]
    assert targets.matching_labels("basset", labels) == [3]
    assert targets.matching_labels("o", labels) == [0, 1, 2, 3, 4]
    assert targets.matching_labels("zebra", labels) == targets.matching_labels(" ", labels) == []


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("tigger cat", "1 (tiger cat)"),
        ("Taby", "0 (tabby, tabby cat)"),
        ("shrak", "3 (Great White Shark, white shark, man-eater)"),
        ("dogg", "2 (dog)"),
    ],
)
def test_a_typo_is_told_the_nearest_names(text, near):
    with pytest.raises(TargetError, match=r"no class is called") as caught:
        targets.find_label(text, LABELS)
    assert f"do: did you mean {near}" in str(caught.value)


def test_what_is_like_no_label_gets_no_guess():
    with pytest.raises(TargetError) as caught:
        targets.find_label("xylophone", LABELS)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("text", ["zebra", "", "  ", "dogs"])
def test_unknown_label(text):
    with pytest.raises(TargetError, match=r"no class is called .*\n  expected: one of the 4 labels"):
        targets.find_label(text, LABELS)


def test_label_without_names_of_classes():
    with pytest.raises(TargetError, match=r"the names are not known") as caught:
        scores("dog", labels=None)
    assert "got: 'dog'" in str(caught.value)
    assert "do: pass its index, or labels=[...]" in str(caught.value)


# what cannot be a class


@pytest.mark.parametrize(
    ("target", "got", "expected"),
    [
        pytest.param(4, "4", "0 to 3: the model gives 4 scores", id="one too many"),
        pytest.param(-1, "-1", "0 to 3: the model gives 4 scores", id="negative"),
        pytest.param([0, 9], "9", "0 to 3: the model gives 4 scores", id="in a list"),
        pytest.param(torch.tensor([-2, 9]), "-2", "0 to 3", id="in a tensor"),
        pytest.param([[0, 1], [1, 4]], "4", "0 to 3", id="among T"),
        pytest.param(
            [1, 2, 3], "targets of shape (3,) for 2 images", "one class, (2,) of them, or (2, T)", id="3 for 2"
        ),
        pytest.param([1], "targets of shape (1,) for 2 images", "one class, (2,) of them, or (2, T)", id="1 for 2"),
        pytest.param([], "targets of shape (0,) for 2 images", "one class, (2,) of them, or (2, T)", id="none for 2"),
        pytest.param([[1, 2]], "targets of shape (1, 2) for 2 images", "one class, (2,)", id="a row for 2"),
        pytest.param(
            torch.zeros(2, 1, 1).long(), "targets of shape (2, 1, 1) for 2 images", "one class", id="(B, 1, 1)"
        ),
        pytest.param([[0], [1, 2]], "[[0], [1, 2]]", "the same T for each", id="ragged"),
        pytest.param([0, [1]], "[0, [1]]", "the same T for each", id="ragged, flat first"),
    ],
)
@pytest.mark.parametrize("kind", [Category, Probability, Contrast, lambda target: target], ids=["c", "p", "vs", "bare"])
def test_wrong_class_says_what_came_and_what_fits(kind, target, got, expected):
    with pytest.raises(TargetError) as caught:
        scores(kind(target))
    assert f"got: {got}" in str(caught.value)
    assert f"expected: {expected}" in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("target", [[[], []], torch.zeros(2, 0).long()], ids=["lists", "tensor"])
def test_no_target_at_all_is_an_error(target):
    """(B, 0) would give an explanation without a map."""
    with pytest.raises(TargetError):
        scores(target)


@pytest.mark.parametrize(
    ("target", "got"),
    [
        pytest.param([True, False], "bool", id="bools"),
        pytest.param([1.0, 2.0], "float", id="floats"),
        pytest.param([None, 1], "NoneType", id="None in a list"),
        pytest.param(torch.tensor([True, False]), "bool", id="bool tensor"),
        pytest.param(torch.tensor([1.0, 2.0]), "float", id="float tensor"),
        pytest.param(torch.tensor([1j, 2]), "complex", id="complex tensor"),
        pytest.param(np.array([True, False]), "bool", id="bool array"),
        pytest.param(np.array([1.0, 2.0]), "float", id="float array"),
        pytest.param([np.bool_(True), 1], "bool", id="numpy bools"),
        pytest.param([np.float32(1), 1], "float32", id="numpy floats"),
        pytest.param([torch.tensor(1.0), 1], "Tensor", id="float tensors in a list"),
        pytest.param([{"class": 1}, 1], "dict", id="dicts"),
        pytest.param(True, "bool", id="a bool"),
    ],
)
def test_what_is_not_an_index_is_refused(target, got):
    """True would be class 1, and 1.7 class 1: refused instead."""
    with pytest.raises(TargetTypeError, match="integer index or a label") as caught:
        scores(target)
    assert f"got: {got}\n" in str(caught.value)
    assert "expected: int, str, a list of them, or an integer tensor (B,) or (B, T)" in str(caught.value)
    assert "do: convert it" in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, SeewhyError)


def test_a_list_of_bool_tensors_is_refused():
    with pytest.raises(TargetTypeError):
        scores([torch.tensor(True), torch.tensor(False)])


@pytest.mark.parametrize(
    ("target", "do"),
    [
        pytest.param([[0, 1, 1, 0], [1, 0, 0, 1]], "pass [[1, 2], [0, 3]]", id="two of each"),
        pytest.param([[0, 1, 0, 0], [0, 0, 0, 1]], "pass [[1], [3]]", id="one of each"),
        pytest.param(torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1]]), "pass [[1], [3]]", id="tensor"),
        pytest.param(np.array([[0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.uint8), "pass [[1], [3]]", id="numpy"),
        pytest.param([[0, 1, 1, 0], [1, 0, 0, 0]], "a list of T indices per image", id="different numbers"),
        pytest.param([[0, 0, 0, 0], [0, 0, 0, 0]], "a list of T indices per image", id="none"),
        pytest.param([0, 1, 1, 0], "a list of T indices per image", id="one row for two images"),
    ],
)
@pytest.mark.parametrize("kind", [Category, Probability, Contrast, lambda target: target], ids=["c", "p", "vs", "bare"])
def test_rows_that_mark_classes_are_refused(kind, target, do):
    """As indices they would be classes 0 and 1, as often as there are classes."""
    with pytest.raises(TargetError, match="a row of zeros and ones marks classes") as caught:
        scores(kind(target))
    assert f"do: {do}" in str(caught.value) or do in str(caught.value).rpartition("do: ")[2]


def test_zeros_and_ones_that_are_indices_are_taken():
    assert scores([[0, 1, 0]] * 2).tolist() == [[1, 4, 1], [0.5, -1, 0.5]]  # not as wide as the classes
    four = OUTPUTS.repeat(2, 1)
    assert scores([0, 1, 1, 0], four, batch=4).tolist() == [1, -1, 4, 0.5]  # a class per image
    assert scores([[0, 1]] * 2, OUTPUTS[:, :2]).tolist() == [[1, 4], [0.5, -1]]  # both of two classes
    with pytest.raises(TargetError, match="marks classes"):
        scores([[0, 1, 0]] * 2, OUTPUTS[:, :3])
    assert scores([[2, 1, 0, 1]] * 2).tolist() == [[2, 4, 1, 4], [0, -1, 0.5, -1]]  # a class 2 is no mark


@pytest.mark.parametrize(
    "marks", [torch.tensor([[False, True, True, False]] * 2), [[True, False, False, True]] * 2], ids=["tensor", "lists"]
)
def test_marks_of_true_and_false_are_told_what_to_pass(marks):
    with pytest.raises(TargetTypeError, match=r"got: bool\n(.|\n)*do: convert it to the indices of what is true"):
        scores(marks)


@pytest.mark.parametrize("target", [1.5, {1, 2}, {"class": 1}, b"dog"], ids=["float", "set", "dict", "bytes"])
def test_a_single_thing_that_is_no_class_is_refused(target):
    with pytest.raises(TargetTypeError, match="integer index or a label"):
        scores(target)


# probabilities


def softmax(row, index):
    return math.exp(row[index]) / sum(math.exp(value) for value in row)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_probability_is_the_softmax():
    rows = OUTPUTS.tolist()
    assert scores(Probability([2, 0])).tolist() == pytest.approx([softmax(rows[0], 2), softmax(rows[1], 0)])
    assert scores(Probability()).tolist() == pytest.approx([softmax(rows[0], 1), softmax(rows[1], 3)])
    found = scores(Probability([[0, 1, 2, 3]] * 2))
    assert found.tolist() == [pytest.approx([softmax(row, index) for index in range(4)]) for row in rows]


def test_probability_of_many_labels_is_the_sigmoid():
    assert scores(Probability([2, 0], multi_label=True)).tolist() == pytest.approx([sigmoid(2), sigmoid(0.5)])


def test_probability_of_one_logit_is_the_sigmoid():
    """Softmax over (-x, x) would be sigmoid(2 x)."""
    outputs = torch.tensor([[0.7], [-1.2]])
    for index in (0, 1):
        assert scores(Probability(index), outputs).tolist() == pytest.approx([sigmoid(0.7), sigmoid(-1.2)])
    no = scores(Probability(0), outputs, labels=["no", "yes"])
    assert no.tolist() == pytest.approx([sigmoid(-0.7), sigmoid(1.2)])
    assert scores(Probability(), outputs).tolist() == pytest.approx([sigmoid(0.7), sigmoid(1.2)])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(None, (1, 3), id="predicted"),
        pytest.param([2, 0], (2, 0), id="classes"),
        pytest.param(Contrast(2, 1), (2, 2), id="a contrast: of the class itself"),
        pytest.param(Probability([2, 0]), (2, 0), id="a probability"),
    ],
)
def test_probabilities_of_what_is_explained(target, expected):
    resolved = targets.resolve(target, OUTPUTS, targets.Context(2))
    rows = OUTPUTS.tolist()
    wanted = [softmax(row, index) for row, index in zip(rows, expected, strict=True)]
    assert targets.probabilities(resolved, OUTPUTS).tolist() == pytest.approx(wanted)


def test_probabilities_of_several_targets_many_labels_one_logit_and_none():
    several = targets.resolve([[0, 1], [3, 2]], OUTPUTS, targets.Context(2))
    first, second = OUTPUTS.tolist()
    expected = [[softmax(first, 0), softmax(first, 1)], [softmax(second, 3), softmax(second, 2)]]
    assert targets.probabilities(several, OUTPUTS).tolist() == [pytest.approx(row) for row in expected]
    labels = targets.resolve(Probability(2, multi_label=True), OUTPUTS, targets.Context(2))
    assert targets.probabilities(labels, OUTPUTS).tolist() == pytest.approx([sigmoid(2), sigmoid(0)])
    logit = torch.tensor([[0.7], [-1.2]])
    sides = targets.resolve(None, logit, targets.Context(2))
    assert targets.probabilities(sides, logit).tolist() == pytest.approx([sigmoid(0.7), sigmoid(1.2)])
    assert targets.probabilities(lambda output: output[:, 0], OUTPUTS) is None


# contrasts


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(Contrast(), [4 - 0.0, 2.5 - -0.5 / 3], id="predicted against all others"),
        pytest.param(Contrast(2), [2 - 2 / 3, 0 - 2 / 3], id="all others"),
        pytest.param(Contrast(2, 1), [-2, 1], id="one"),
        pytest.param(Contrast(None, 0), [3, 2], id="predicted against one"),
        pytest.param(Contrast(2, [0, 1]), [2 - 2.5, 0 - -0.25], id="several"),
        pytest.param(Contrast([2, 0], [1, 3]), [2 - 0.5, 0.5 - 0.75], id="one per image, against several"),
        pytest.param(Contrast("dog", "tabby"), [1, -0.5], id="labels"),
        pytest.param(Contrast("dog", ["tabby", "tiger"]), [2 - 2.5, 0 - -0.25], id="against labels"),
        pytest.param(Contrast(2, torch.tensor([0, 1])), [2 - 2.5, 0 - -0.25], id="against a tensor"),
        pytest.param(
            Contrast([[2, 0], [1, 3]]), [[2 - 2 / 3, 1 - 1], [-1 - 1, 2.5 - -0.5 / 3]], id="T against all others"
        ),
        pytest.param(Contrast([[2, 0], [1, 3]], 1), [[-2, -3], [0, 3.5]], id="T against one"),
    ],
)
def test_contrast_is_the_score_minus_the_mean_of_the_others(target, expected):
    assert scores(target).tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_contrast_of_one_logit_is_between_its_two_sides():
    assert scores(Contrast(1), torch.tensor([[0.7], [-1.2]])).tolist() == pytest.approx([1.4, -2.4])
    assert scores(Contrast(), torch.tensor([[0.7], [-1.2]])).tolist() == pytest.approx([1.4, 2.4])


def test_contrast_against_what_does_not_exist_is_refused():
    with pytest.raises(TargetError, match=r"class 4 is out of range"):
        scores(Contrast(2, 4))
    with pytest.raises(TargetError, match=r"class -1 is out of range"):
        scores(Contrast(2, [0, -1]))
    with pytest.raises(TargetError, match=r"no class to compare with.*\n  got: an empty list\n  do: pass against=None"):
        scores(Contrast(2, []))
    with pytest.raises(TargetTypeError):
        scores(Contrast(2, [0.5]))
    with pytest.raises(TargetError, match="no class is called 'zebra'"):
        scores(Contrast(2, "zebra"))


# one logit


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("batch", [2, 1])
def test_one_logit_explains_the_predicted_side(shape, batch):
    """Need 8. Image 0 says yes (0.7), image 1 says no (-1.2): the score of no is 1.2."""
    outputs = torch.tensor([0.7, -1.2]).reshape(shape)
    assert scores(None, outputs).tolist() == pytest.approx([0.7, 1.2])
    assert targets.resolve(None, outputs, targets.Context(2)).index.tolist() == [1, 0]
    for index, expected in ((0, 0.7), (1, 1.2)):
        assert scores(None, outputs[index : index + 1], batch=1).tolist() == pytest.approx([expected])


LOGIT = torch.tensor([[0.7], [-1.2]])


@pytest.mark.parametrize("labels", [None, ["nodule"]])
@pytest.mark.parametrize("target", [0, 1, [0, 1], torch.tensor([1, 0]), np.array(0)], ids=str)
def test_every_class_of_one_output_is_the_output_itself(target, labels):
    """Whatever it is counted as: only where the negative side has a name too can it be meant."""
    for kind in (Category, lambda target: target):
        assert scores(kind(target), LOGIT, labels=labels).tolist() == pytest.approx([0.7, -1.2])
    assert scores([[0, 1]] * 2, LOGIT, labels=labels).tolist() == [pytest.approx([0.7] * 2), pytest.approx([-1.2] * 2)]


def test_one_label_names_the_positive_side():
    assert scores("nodule", LOGIT, labels=["nodule"]).tolist() == pytest.approx([0.7, -1.2])
    likely = scores(Probability("nodule"), LOGIT, labels=["nodule"])
    assert likely.tolist() == pytest.approx([sigmoid(0.7), sigmoid(-1.2)])


def test_two_labels_name_both_sides():
    for target in ("no", 0):
        assert scores(target, LOGIT, labels=["no", "yes"]).tolist() == pytest.approx([-0.7, 1.2])
    for target in ("yes", 1):
        assert scores(target, LOGIT, labels=["no", "yes"]).tolist() == pytest.approx([0.7, -1.2])
    assert scores(["no", "yes"], LOGIT, labels=["no", "yes"]).tolist() == pytest.approx([-0.7, -1.2])


@pytest.mark.parametrize("labels", [None, ["nodule"], ["no", "yes"]])
def test_one_output_has_no_third_class(labels):
    with pytest.raises(TargetError, match="expected: 0 to 1: a single output has two sides"):
        scores(2, LOGIT, labels=labels)


def test_three_labels_do_not_name_one_output():
    """0 is the output itself still; by a name nothing can be meant."""
    assert scores(0, LOGIT, labels=["a", "b", "c"]).tolist() == pytest.approx([0.7, -1.2])
    with pytest.raises(TargetError, match=r"no class of this name.\n  got: 'a' and 3 labels"):
        scores("a", LOGIT, labels=["a", "b", "c"])
    with pytest.raises(TargetError, match="no class of this name"):
        scores(["a", "b"], LOGIT, labels=["a", "b", "c"])


@pytest.mark.parametrize("labels", [None, ["nodule"], ["no", "yes"]])
@pytest.mark.parametrize("kind", [Category, Probability, Contrast])
@pytest.mark.parametrize("index", [None, 0, 1, [0, 1]], ids=str)
def test_resolved_once_more_a_side_stays_the_same(kind, index, labels):
    """An index of a resolved target is a side already: 0 must not become the output again."""
    context = targets.Context(2, labels=labels)
    once = targets.resolve(kind(index), LOGIT, context)
    again = targets.resolve(once, LOGIT, targets.Context(2))
    assert again.index.tolist() == once.index.tolist()
    assert again(LOGIT).tolist() == once(LOGIT).tolist()
    with pytest.raises(TargetError, match="does not match the batch"):
        targets.resolve(once, LOGIT.repeat(2, 1), targets.Context(4))


def test_a_regression_has_no_negative_side():
    """The predicted side of a value of -1.2 would be 1.2; it is the value that is explained, and it has no sigmoid."""
    context = targets.Context(2, regression=True)
    for target in (None, 0, 1):
        resolved = targets.resolve(target, LOGIT, context)
        assert resolved(LOGIT).tolist() == pytest.approx([0.7, -1.2])
        assert targets.probabilities(resolved, LOGIT) is None
    with pytest.raises(TargetError, match="a regression gives a value, not a probability"):
        targets.resolve(Probability(), LOGIT, context)
    several = targets.resolve(None, OUTPUTS, context)  # of several values the highest one
    assert several(OUTPUTS).tolist() == [4, 2.5]
    assert several.index.tolist() == [1, 3]


def test_a_contrast_of_one_output_needs_the_name_of_its_other_side():
    """Against class 0, which is the output itself, it would be 0 everywhere."""
    with pytest.raises(
        TargetError, match=r"no other class to compare with.\n  got: against=0\n  do: leave against out"
    ):
        scores(Contrast(1, 0), LOGIT, labels=None)
    found = scores(Contrast("yes", "no"), LOGIT, labels=["no", "yes"])
    assert found.tolist() == pytest.approx([1.4, -2.4])


@pytest.mark.parametrize(
    ("target", "labels", "outputs", "said"),
    [
        pytest.param(None, ["nodule"], LOGIT, ["nodule", "not nodule"], id="one label"),
        pytest.param(None, ["no", "yes"], LOGIT, ["yes", "no"], id="two labels"),
        pytest.param(None, None, LOGIT, ["the output", "minus the output"], id="no label"),
        pytest.param(None, ["a", "b", "c"], LOGIT, ["the output", "minus the output"], id="labels of something else"),
        pytest.param(0, ["nodule"], LOGIT, ["nodule", "nodule"], id="class 0 of one label"),
        pytest.param(0, None, LOGIT, ["the output"] * 2, id="class 0"),
        pytest.param(0, ["no", "yes"], LOGIT, ["no", "no"], id="class 0 of two labels"),
        pytest.param(Probability("nodule"), ["nodule"], LOGIT, ["probability of nodule"] * 2, id="probability"),
        pytest.param(Contrast(1), ["nodule"], LOGIT, ["nodule against its opposite"] * 2, id="contrast of one"),
        pytest.param([1, 3], LABELS, OUTPUTS, [LABELS[1], LABELS[3]], id="classes"),
        pytest.param([1, 3], LABELS[:2], OUTPUTS, ["tiger cat", "class 3"], id="too few labels"),
        pytest.param([1, 3], None, OUTPUTS, ["class 1", "class 3"], id="no labels"),
        pytest.param(Contrast(2), LABELS, OUTPUTS, ["dog against all others"] * 2, id="contrast"),
        pytest.param(Contrast("dog", ["tiger", 0]), LABELS[:3], OUTPUTS,
                     ["dog against tiger cat, tabby, tabby cat"] * 2, id="contrast with some"),
    ],
)  # fmt: skip
def test_a_target_says_in_words_what_it_is_about(target, labels, outputs, said):
    resolved = targets.resolve(target, outputs, targets.Context(2, labels=labels))
    assert [targets.describe(resolved, labels, image) for image in range(2)] == said


def test_each_of_several_targets_is_told():
    several = targets.resolve([[0, 1], [3, 2]], OUTPUTS, targets.Context(2))
    assert targets.describe(several, LABELS, 1, 1) == "dog"
    finer = targets.finer(targets.resolve([[0, 1], [3, 2]], OUTPUTS, targets.Context(2)), OUTPUTS, count=1)
    assert targets.describe(finer, ["a", "b", "c", "d"], 0, 0) == "a against c"
    assert targets.describe(targets.finer(Category(torch.tensor([1, 3])), OUTPUTS, count=2), None, 0) == (
        "class 1 against class 2, class 0"
    )
    for unclear in (Category("dog"), Contrast("dog"), Probability("dog"), several, finer):
        assert targets.describe(unclear, LABELS) == "", "not resolved, or one of several"
    assert targets.describe(Category(2), LABELS) == "dog"


def test_the_first_image_is_told_of_where_none_is_named():
    two, others = torch.tensor([1, 3]), torch.tensor([[2], [0]])
    said = {
        Category(two): "class 1",
        Probability(two): "probability of class 1",
        Contrast(two, others): "class 1 against class 2",
        targets.finer(Category(two), OUTPUTS, count=1): "class 1 against class 2",
    }
    assert [target.describe() for target in said] == list(said.values())


@pytest.mark.parametrize("kind", [Category, Probability, Contrast])
def test_what_the_scores_are_is_no_part_of_what_is_asked(kind):
    """Filled in when a target is resolved, it makes no other target of it, and nobody wrote it."""
    assert kind(1, kind="one logit") == kind(1, kind="scores") == kind(1)
    assert repr(kind(1, kind="scores")) == repr(kind(1))


def test_the_columns_of_one_output_have_names():
    found = targets.class_scores(LOGIT)
    assert found.single
    assert found.names(["nodule"]) == ["not nodule", "nodule"]
    assert found.likely.tolist() == [
        pytest.approx([sigmoid(-0.7), sigmoid(0.7)]),
        pytest.approx([sigmoid(1.2), sigmoid(-1.2)]),
    ]
    assert targets.class_scores(LOGIT.sigmoid().requires_grad_().sigmoid()).names(None) == [
        "1 - the output",
        "the output",
    ]
    assert not targets.class_scores(OUTPUTS).single


class Ends(nn.Module):
    """A model whose logits are `weight` times the mean of each image, followed by `end`."""

    def __init__(self, end, weight=((1.0,),)):
        super().__init__()
        self.features = nn.Conv2d(1, 1, 1)
        self.head = nn.Linear(1, len(weight))
        self.end = end
        one, none = torch.ones(1, 1, 1, 1), torch.zeros(1)
        self.load_state_dict(
            {
                "features.weight": one,
                "features.bias": none,
                "head.weight": torch.tensor(weight),
                "head.bias": torch.zeros(len(weight)),
            }
        )

    def forward(self, x):
        return self.end(self.head(self.features(x).mean((2, 3))))


def ramps(*means):
    return torch.stack([mean + torch.linspace(-0.1, 0.1, 16).reshape(1, 4, 4) for mean in means])


SIGMOIDS = {
    "torch.sigmoid": torch.sigmoid,
    "module": nn.Sigmoid(),
    "squeezed": lambda x: x.sigmoid().squeeze(1),
    "flattened": lambda x: x.sigmoid().flatten(),
    "first column": lambda x: x.sigmoid()[:, 0],
    "reshaped": lambda x: x.sigmoid().reshape(-1, 1, 1, 1),
    "in float64": lambda x: x.sigmoid().double(),
    "in a dict": lambda x: {"scores": x.sigmoid()},
}


@pytest.mark.parametrize("end", SIGMOIDS.values(), ids=SIGMOIDS.keys())
def test_model_that_ends_in_a_sigmoid_predicts_by_one_half(end):
    """p = 0.668 speaks for yes, p = 0.231 for no, whose score is 0.769. The sign of p would say yes to both."""
    found = seewhy.explain(Ends(end), ramps(0.7, -1.2), layers="features")
    assert found.targets.index.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([sigmoid(0.7), sigmoid(1.2)])
    slopes = [sigmoid(0.7) * sigmoid(-0.7) / 16, -sigmoid(1.2) * sigmoid(-1.2) / 16]  # dp/dx and d(1 - p)/dx
    expected = ramps(0.7, -1.2)[:, 0] * torch.tensor(slopes)[:, None, None]
    torch.testing.assert_close(found.maps["features"].float(), expected)


def test_probability_of_a_model_that_ends_in_a_sigmoid_is_its_output():
    found = seewhy.explain(Ends(nn.Sigmoid()), ramps(0.7, -1.2), Probability(), layers="features")
    assert found.scores.tolist() == pytest.approx([sigmoid(0.7), sigmoid(1.2)])
    model = Ends(nn.Sigmoid(), ((1.0,), (-2.0,), (0.5,)))
    for multi_label in (False, True):
        target = Probability([0, 1], multi_label=multi_label)
        found = seewhy.explain(model, ramps(0.7, -1.2), target, layers="features")
        assert found.scores.tolist() == pytest.approx([sigmoid(0.7), sigmoid(2.4)])


@pytest.mark.parametrize("end", [nn.Softmax(1), lambda x: x.softmax(-1), lambda x: x.softmax(1)[:, :]])
def test_probability_of_a_model_that_ends_in_a_softmax_is_its_output(end):
    """A softmax of the softmax would be 0.41 instead of 0.73."""
    rows = [[0.7, -1.4, 0.35], [-1.2, 2.4, -0.6]]
    model = Ends(end, ((1.0,), (-2.0,), (0.5,)))
    found = seewhy.explain(model, ramps(0.7, -1.2), Probability([0, 2]), layers="features")
    assert found.scores.tolist() == pytest.approx([softmax(rows[0], 0), softmax(rows[1], 2)])


def test_probability_of_a_model_that_ends_in_a_log_softmax_is_its_exponential():
    rows = [[0.7, -1.4, 0.35], [-1.2, 2.4, -0.6]]
    model = Ends(nn.LogSoftmax(1), ((1.0,), (-2.0,), (0.5,)))
    found = seewhy.explain(model, ramps(0.7, -1.2), Probability([0, 2]), layers="features")
    assert found.scores.tolist() == pytest.approx([softmax(rows[0], 0), softmax(rows[1], 2)])


def test_a_sigmoid_inside_the_model_is_not_its_end():
    """One logit after a gate stays a logit: p = 0.5 does not decide, its sign does."""
    model = Ends(lambda x: x.sigmoid() - 0.5)
    found = seewhy.explain(model, ramps(0.7, -1.2), layers="features")
    assert found.targets.index.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([sigmoid(0.7) - 0.5, 0.5 - sigmoid(-1.2)])


# where the scores are


@dataclass
class Output:
    logits: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    attention: tuple[torch.Tensor, ...] = ()


@dataclass
class ModelOutput(OrderedDict):
    """As transformers builds it: a dict and a dataclass at once."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: torch.Tensor | None = None

    def __post_init__(self):
        for name in ("loss", "logits", "hidden_states"):
            if (value := getattr(self, name)) is not None:
                self[name] = value


HIDDEN = torch.zeros(2, 7, 3)


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param(OUTPUTS, id="tensor"),
        pytest.param((OUTPUTS,), id="tuple of one"),
        pytest.param([OUTPUTS], id="list of one"),
        pytest.param((OUTPUTS, torch.tensor([1, 2])), id="tuple, one of floats"),
        pytest.param((OUTPUTS, None, "note"), id="tuple with other things"),
        pytest.param({"anything": OUTPUTS}, id="dict of one"),
        pytest.param({"hidden": HIDDEN, "logits": OUTPUTS}, id="logits"),
        pytest.param({"out": OUTPUTS, "aux": HIDDEN}, id="out"),
        pytest.param({"scores": OUTPUTS, "boxes": HIDDEN}, id="scores"),
        pytest.param({"features": HIDDEN, "pred": OUTPUTS}, id="pred"),
        pytest.param({"features": HIDDEN, "prediction": OUTPUTS}, id="prediction"),
        pytest.param({"scores": HIDDEN, "logits": OUTPUTS}, id="logits before scores"),
        pytest.param(Output(OUTPUTS, HIDDEN), id="dataclass"),
        pytest.param(Output(hidden=OUTPUTS), id="dataclass of one"),
        pytest.param(ModelOutput(loss=torch.tensor(0.5), logits=OUTPUTS, hidden_states=HIDDEN), id="ModelOutput"),
    ],
)
def test_scores_are_found(outputs):
    """Need 25: tuple, list, dict, dataclass and ModelOutput."""
    assert targets.scores_tensor(outputs) is OUTPUTS
    assert scores([2, 0], outputs).tolist() == [2, 0.5]


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        pytest.param((OUTPUTS, HIDDEN), "tuple with 0: (2, 4), 1: (2, 7, 3)", id="tuple of two"),
        pytest.param({"a": OUTPUTS, "b": HIDDEN}, "dict with 'a': (2, 4), 'b': (2, 7, 3)", id="dict of two"),
        pytest.param({"a": [OUTPUTS], "n": 3}, "dict with 'a': list, 'n': int", id="deeper"),
        pytest.param(Output(None, OUTPUTS[:1], (HIDDEN,)), None, id="found after all"),
        pytest.param({"labels": torch.tensor([1, 2])}, "dict with 'labels': (2,)", id="integers only"),
        pytest.param({}, "dict with nothing in it", id="empty"),
        pytest.param(None, "NoneType with nothing in it", id="None"),
        pytest.param(torch.tensor(0.5), "Tensor with nothing in it", id="a loss"),
    ],
)
def test_scores_that_are_not_found_list_keys_and_shapes(outputs, got):
    """Need 25: or the error lists the keys."""
    if got is None:
        assert targets.scores_tensor(outputs) is outputs.hidden
        return
    with pytest.raises(OutputError, match="the class scores were not found") as caught:
        scores(None, outputs)
    assert f"got: {got}\n" in str(caught.value)
    assert "'logits', 'out', 'scores', 'pred', 'prediction'" in str(caught.value)
    assert "do: pass a function of the output as target" in str(caught.value)


def test_scores_per_place_are_not_class_scores():
    with pytest.raises(OutputError, match="per class and place") as caught:
        scores(None, torch.zeros(2, 4, 8, 8))
    assert "got: an output of shape (2, 4, 8, 8)\n" in str(caught.value)
    assert "expected: (B, K)" in str(caught.value)


def test_dimensions_of_one_are_dropped():
    assert scores([2, 0], OUTPUTS[:, :, None, None]).tolist() == [2, 0.5]
    assert scores([2, 0], OUTPUTS[:, None]).tolist() == [2, 0.5]  # what VideoPrism's head of one query gives


def test_output_needs_a_row_per_image():
    with pytest.raises(OutputError, match=r"got: scores of shape \(2, 4\) for 3 images"):
        scores(None, OUTPUTS, batch=3)


# functions of the output

IMAGES = ramps(0.7, -1.2)
LINEAR = ((1.0,), (-2.0,), (0.5,))


def test_function_gets_the_output_as_it_comes_and_returns_a_score_per_image():
    """The score is twice the second entry: -4 times the mean, slope -4 / 16."""
    model = Ends(lambda x: {"deep": [x]}, LINEAR)
    found = seewhy.explain(model, IMAGES, lambda output: 2 * output["deep"][0][:, 1], layers="features")
    assert found.scores.tolist() == pytest.approx([-2.8, 4.8])
    torch.testing.assert_close(found.maps["features"], -0.25 * IMAGES[:, 0])


def test_function_may_return_several_scores_per_image():
    model = Ends(nn.Identity(), LINEAR)
    found = seewhy.explain(model, IMAGES, lambda output: output[:, [2, 0]], layers="features")
    assert found.scores.tolist() == [pytest.approx([0.35, 0.7]), pytest.approx([-0.6, -1.2])]
    expected = torch.stack([0.5 * IMAGES[:, 0] / 16, IMAGES[:, 0] / 16], 1)
    torch.testing.assert_close(found.maps["features"], expected)


def test_function_may_return_a_scalar_for_one_image():
    model = Ends(nn.Identity(), LINEAR)
    found = seewhy.explain(model, IMAGES[:1], lambda output: output[0, 0], layers="features")
    assert found.scores.tolist() == pytest.approx([0.7])
    torch.testing.assert_close(found.maps["features"], IMAGES[:1, 0] / 16)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        pytest.param(lambda output: output.sum(), "torch.float32 of shape ()", id="a scalar for two"),
        pytest.param(lambda output: output[:1, 0], "torch.float32 of shape (1,)", id="one for two"),
        pytest.param(lambda output: output[0], "torch.float32 of shape (3,)", id="classes for images"),
        pytest.param(lambda output: output.T, "torch.float32 of shape (3, 2)", id="the wrong way round"),
        pytest.param(lambda output: output[:, None], "torch.float32 of shape (2, 1, 3)", id="three dimensions"),
        pytest.param(lambda output: output.argmax(1), "torch.int64 of shape (2,)", id="integers"),
    ],
)
def test_function_that_returns_something_else_is_told_so(function, got):
    with pytest.raises(TargetError, match="did not return a score per image") as caught:
        seewhy.explain(Ends(nn.Identity(), LINEAR), IMAGES, function, layers="features")
    assert f"got: {got}\n" in str(caught.value)
    assert "expected: floating point of shape (2,), or (2, T)" in str(caught.value)


@pytest.mark.parametrize("function", [lambda output: [1.0, 2.0], lambda output: 0.5, lambda output: None])
def test_function_that_returns_no_tensor_is_told_so(function):
    with pytest.raises(TargetTypeError, match=r"did not return a tensor.\n  got: (list|float|NoneType)"):
        seewhy.explain(Ends(nn.Identity(), LINEAR), IMAGES, function, layers="features")


def class_of_most_interest(output):
    return output[:, 0].detach().numpy()


@pytest.mark.parametrize("wrap", [lambda target: target, functools.partial], ids=["bare", "partial"])
def test_a_function_that_returns_numpy_is_named(wrap):
    where = (
        rf"the target class_of_most_interest \(test_classes.py, line {class_of_most_interest.__code__.co_firstlineno}\)"
    )
    with pytest.raises(
        TargetTypeError, match=where + r" did not return a tensor.\n  got: ndarray\n  expected: .*numpy"
    ):
        seewhy.explain(Ends(nn.Identity(), LINEAR), IMAGES, wrap(class_of_most_interest), layers="features")


def test_a_detached_score_is_an_error_that_names_the_target():
    outputs = OUTPUTS.clone().requires_grad_() * 1
    differentiable = targets.Context(2, differentiable=True)
    with pytest.raises(
        GradientError, match=r"the target .*<lambda> \(test_classes.py, line \d+\) does not depend"
    ) as caught:
        targets.resolve(lambda output: output.detach()[:, 0], outputs, differentiable)
    assert "do: look for detach()" in str(caught.value)
    for seen, context in (
        (outputs, targets.Context(2)),
        (OUTPUTS, differentiable),
    ):  # for rise; of a model without graph
        assert targets.resolve(lambda output: output.detach()[:, 0], seen, context)(seen).tolist() == [1, 0.5]


def test_a_function_of_many_scores_by_accident_is_warned_of():
    model = Ends(nn.Identity(), tuple((0.1 * number,) for number in range(17)))
    with pytest.warns(
        TargetWarning, match=r"<lambda> \(test_classes.py, line \d+\) returned 17 scores per image"
    ) as caught:
        found = seewhy.explain(model, IMAGES, lambda output: output, layers="features")
    assert found.scores.shape == (2, 17)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", TargetWarning)
        seewhy.explain(model, IMAGES, lambda output: output[:, :16], layers="features")
        seewhy.explain(model, IMAGES, [list(range(17))] * 2, layers="features")  # meant


def test_a_function_is_tried_once():
    """Views and noisy copies of the inputs resolve what is resolved already: it is not tried, and warned of, again."""
    asked = []
    once = targets.resolve(lambda output: asked.append(output) or output[:, 0], OUTPUTS, targets.Context(2))
    assert targets.resolve(once, OUTPUTS, targets.Context(2)) is once
    assert len(asked) == 1


def test_a_callable_object_is_a_target():
    class Second:
        def __call__(self, output):
            return output[:, 1]

    found = targets.resolve(Second(), OUTPUTS, targets.Context(2))
    assert found(OUTPUTS).tolist() == [4, -1]
    assert targets.describe(found) == "Second"
    assert targets.classes_of(found) is targets.outline(found, 0, None) is targets.probabilities(found, OUTPUTS) is None
    assert targets.mirrored(found) is found


@dataclass(frozen=True)
class Margin(targets.BaseTarget):
    """What a user would write: by its rows each image has its own class."""

    index: torch.Tensor

    def __call__(self, outputs):
        return outputs.gather(1, self.index[:, None])[:, 0] - outputs.mean(1)


def test_a_target_of_ones_own():
    found = targets.resolve(Margin(torch.tensor([1, 3])), OUTPUTS, targets.Context(2))
    assert found(OUTPUTS).tolist() == [3, 2]
    rows = OUTPUTS[[1, 0, 1]]
    assert targets.for_rows(found, rows, torch.tensor([1, 0, 1]), OUTPUTS, 2).tolist() == [2, 3, 2]
    explanation = seewhy.explain(Ends(nn.Identity(), LINEAR), IMAGES, Margin(torch.tensor([0, 1])), layers="features")
    assert explanation.scores.tolist() == pytest.approx([0.7 * (1 + 0.5 / 3), -1.2 * (-2 + 0.5 / 3)])
    assert explanation[1].targets.index.tolist() == [1]


def test_an_object_can_choose_its_target_when_it_sees_the_output():
    class Chooses:
        def resolved(self, outputs, context):
            return "dog" if outputs.shape[1] == 4 else lambda output: output[:, 0]

    assert scores(Chooses()).tolist() == [2, 0]
    assert scores(Chooses(), OUTPUTS[:, :3]).tolist() == [1, 0.5]


def test_what_a_function_raises_comes_through():
    with pytest.raises(KeyError, match="'absent'"):
        seewhy.explain(Ends(lambda x: {"logits": x}), IMAGES, lambda output: output["absent"], layers="features")
