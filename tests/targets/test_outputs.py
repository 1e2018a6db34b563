"""Where in a model's output the scores are: found, told, or taken out by the caller."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from seewhy import targets
from seewhy.errors import InputTypeError, OutputError

MAIN, AUXILIARY = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
Pair = namedtuple("Pair", "logits aux")


@dataclass
class Both:
    logits: torch.Tensor
    aux: torch.Tensor


@pytest.mark.parametrize(
    ("outputs", "output"),
    [
        pytest.param((MAIN, AUXILIARY), 1, id="place in a tuple"),
        pytest.param([MAIN, AUXILIARY], 1, id="place in a list"),
        pytest.param((MAIN, AUXILIARY), -1, id="from the end"),
        pytest.param({"logits": MAIN, "aux": AUXILIARY}, "aux", id="key"),
        pytest.param({0: MAIN, 1: AUXILIARY}, 1, id="key that is a number"),
        pytest.param({0: MAIN, -1: AUXILIARY}, -1, id="key below 0"),
        pytest.param(Both(MAIN, AUXILIARY), "aux", id="field of a dataclass"),
        pytest.param(Pair(MAIN, AUXILIARY), "aux", id="field of a named tuple"),
        pytest.param(Pair(MAIN, AUXILIARY), 1, id="place in a named tuple"),
        pytest.param(SimpleNamespace(logits=MAIN, aux=AUXILIARY), "aux", id="attribute"),
        pytest.param((MAIN, {"deep": [AUXILIARY]}), lambda found: found[1]["deep"][0], id="function"),
        pytest.param(AUXILIARY, None, id="all of it"),
    ],
)
def test_a_part_is_taken_out(outputs, output):
    assert targets.select(outputs, output) is AUXILIARY


@pytest.mark.parametrize(
    ("outputs", "output", "message"),
    [
        ((MAIN, AUXILIARY), 2, r"no part 2.\n  got: tuple with 0: .*\n  expected: output=0 or 1"),
        ((MAIN, AUXILIARY), -3, r"no part -3"),
        ((MAIN, AUXILIARY), "logits", r"no part 'logits'.\n(.|\n)*output=0 or 1"),
        ({"logits": MAIN, "aux": AUXILIARY}, 0, r"no part 0.\n  got: dict .*\n  expected: output='logits' or 'aux'"),
        ({"logits": MAIN, "aux": AUXILIARY}, "items", r"no part 'items'"),
        (Pair(MAIN, AUXILIARY), "count", r"no part 'count'"),
        (MAIN, 0, r"no part 0.\n  got: a tensor of shape \(1, 2\)\n  expected: no output=: there is one part only"),
        (MAIN, "real", "no part 'real'"),
    ],
)
def test_a_part_that_is_not_there_is_told(outputs, output, message):
    with pytest.raises(OutputError, match=message):
        targets.select(outputs, output)


@pytest.mark.parametrize(("output", "got"), [(True, "bool"), (1.0, "float"), ((0, 1), "tuple")])
def test_what_does_not_say_a_part_is_refused(output, got):
    with pytest.raises(InputTypeError, match=f"does not say which part.*\n  got: {got}\n  expected: an int, a str"):
        targets.select((MAIN, AUXILIARY), output)


def test_what_the_function_raises_comes_through():
    with pytest.raises(ZeroDivisionError):
        targets.select(MAIN, lambda outputs: 1 / 0)


@pytest.mark.parametrize(
    ("outputs", "example", "option"),
    [
        ((MAIN, AUXILIARY), "output[0][:, 3]", "output=0"),
        ({"main": MAIN, "auxiliary": AUXILIARY}, "output['main'][:, 3]", "output='main'"),
        (("a note", MAIN, AUXILIARY), "output[1][:, 3]", "output=1"),
    ],
)
def test_two_tensors_name_the_option(outputs, example, option):
    """What the message advises works."""
    with pytest.raises(OutputError, match="the class scores were not found") as caught:
        targets.scores_tensor(outputs)
    assert f"do: pass a function of the output as target, such as lambda output: {example}, or say which part" in str(
        caught.value
    )
    assert str(caught.value).endswith(option)
    assert targets.select(outputs, eval(option.removeprefix("output="))) is MAIN


def test_scores_are_found_by_the_name_of_a_field_and_beside_a_loss():
    class Named(NamedTuple):
        loss: Any
        auxiliary: Any
        logits: Any

    assert targets.scores_tensor(Named(torch.tensor(1.0), AUXILIARY, MAIN)) is MAIN
    assert targets.scores_tensor((torch.tensor(1.0), MAIN)) is MAIN
