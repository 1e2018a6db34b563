"""The tokens of an answer: which are asked about, and the score that a model of language gives to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import OutputError, TargetError, TargetTypeError
from seewhy.targets.base import BaseTarget


@dataclass(frozen=True)
class Token(BaseTarget):
    """Tokens of an answer to a prompt about pictures: a map for each, all from one forward over the answer.

        seewhy.explain(model, processor_output, seewhy.Token("ring", of="a red ring", tokenizer=processor))

    Args:
        which: a number, a slice, a text that occurs in the answer, or a list of numbers and texts; None is all. A
            text that is more than one token is one target: its score is the mean of theirs.
        of: the answer: "generated" is the model's own (greedy, from the prompt); else a text, or its tokens (n,) or
            (B, n).
        tokenizer: the model's tokenizer or processor, for texts. A model of `seewhy.load` brings it.
        per: what is counted: "token", or "word" for what stands between spaces, which takes the tokenizer.
        length: how many tokens are generated at most.

    Raises:
        TargetError: on the call, where the answer has no such token, or a text comes without a tokenizer.
        TargetTypeError: for what names no token.
    """

    which: int | str | slice | Sequence[int | str] | None = None
    of: Any = "generated"
    tokenizer: Any = None
    per: Literal["token", "word"] = "token"
    length: int = 32

    def __post_init__(self) -> None:
        one = int | str | slice | None
        listed = isinstance(self.which, list | tuple) and all(isinstance(entry, int | str) for entry in self.which)
        if isinstance(self.which, bool) or not (isinstance(self.which, one) or listed):
            raise TargetTypeError(
                "this names no token.", got=repr(self.which), expected="a number, a text, a slice, a list, or None"
            )
        if self.per not in ("token", "word"):
            raise TargetTypeError("unknown unit.", got=f"per={self.per!r}", expected='"token" or "word"')

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:  # noqa: ARG002
        raise TargetError(
            "a token is explained of a prompt with pictures.",
            got="an output, without the prompt that it answers",
            do="seewhy.explain(model, processor_output, seewhy.Token(...))",
        )

    def spoken(self, ids: Int[Tensor, "B n"], lengths: Sequence[int], *, ahead: int, tokenizer: Any = None) -> Spoken:
        """The tokens that are asked about, in an answer.

        Args:
            ids: (B, n), the answer of each row.
            lengths: how many of its tokens count.
            ahead: how many positions before itself a token is predicted: 1, or 0 where a decoder is shifted already.
            tokenizer: to be used where the target brings none.

        Returns:
            The target for these answers.

        Raises:
            TargetError: where an answer has no such token, where a text or a word is asked for without a tokenizer, and
                where the answers differ in how many of their tokens are asked about.
        """
        tokenizer = self.tokenizer or tokenizer
        texts = (
            None
            if tokenizer is None
            else [pieces(tokenizer, row[:count]) for row, count in zip(ids, lengths, strict=True)]
        )
        if texts is None and (self.per == "word" or _has_text(self.which)):
            raise _no_tokenizer(repr(self.which) if _has_text(self.which) else 'per="word"')
        asked = [self._asked(count, None if texts is None else texts[row]) for row, count in enumerate(lengths)]
        if len({len(groups) for groups in asked}) > 1:
            raise TargetError(
                "the answers have different numbers of tokens that are asked about.",
                got=", ".join(str(len(groups)) for groups in asked),
                expected="as many for each row of the batch",
                do="name them by number or text, or explain the prompts one at a time",
            )
        members = torch.zeros(len(ids), len(asked[0]), ids.shape[1], device=ids.device)
        names = []
        for row, groups in enumerate(asked):
            for number, group in enumerate(groups):
                members[row, number, group] = 1.0
            parts = [str(int(token)) for token in ids[row]] if texts is None else texts[row]
            names.append(
                tuple("".join(parts[place] for place in group).strip() or repr(parts[group[0]]) for group in groups)
            )
        single = isinstance(self.which, int | str)
        return Spoken(ids, members[:, 0] if single else members, tuple(names), torch.arange(len(ids)), ahead)

    def _asked(self, count: int, texts: list[str] | None) -> list[list[int]]:
        """The groups of tokens that one row's targets are."""
        units = [[place] for place in range(count)] if self.per == "token" or texts is None else words(texts)
        if self.which is None or isinstance(self.which, slice):
            found = units if self.which is None else units[self.which]
        else:
            each = [self.which] if isinstance(self.which, int | str) else self.which
            found = [_spelled(one, texts or []) if isinstance(one, str) else _numbered(one, units) for one in each]
        if not found:
            raise TargetError(
                "no token of the answer is asked about.", got=repr(self.which), expected=f"some of its {len(units)}"
            )
        return found


@dataclass(frozen=True)
class Spoken(BaseTarget):
    """The score of tokens of an answer that the model was given: the mean of their logits where each is predicted.

    Attributes:
        ids: (B, n), the answer.
        members: (B, [T,] n), 1 for the tokens that a target is.
        names: for each row of the call the text of each target.
        rows: (B,), which row of `names` each row is.
        ahead: how many positions before itself a token is predicted.
        probability: whether the score is the tokens' probability instead: the product of each one's after those before
            it.
    """

    ids: Int[Tensor, "B n"]
    members: Float[Tensor, "B *T n"]
    names: tuple[tuple[str, ...], ...]
    rows: Int[Tensor, " B"]
    ahead: int = 1
    probability: bool = False

    def __call__(self, outputs: Any) -> Float[Tensor, "B *T"]:
        if self.probability:
            return self.probabilities(outputs)
        return self._summed(_own(self._logits(outputs), self.ids)) / self.members.sum(-1)

    def probabilities(self, outputs: Any) -> Float[Tensor, "B *T"]:
        return self._summed(_own(self._logits(outputs).log_softmax(-1), self.ids)).exp()

    def describe(self, labels: Sequence[str] | None = None, image: int = 0, number: int | None = None) -> str:  # noqa: ARG002
        return self.names[int(self.rows[image])][number or 0]

    def _summed(self, values: Float[Tensor, "B n"]) -> Float[Tensor, "B *T"]:
        members = self.members.to(values)
        return (members * (values if members.ndim == 2 else values[:, None])).sum(-1)

    def _logits(self, outputs: Any) -> Float[Tensor, "B n V"]:
        """The logits that each token of the answer is predicted by."""
        logits, count = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None), self.ids.shape[1]
        if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[1] < count + self.ahead:
            raise OutputError(
                "there are no logits of the answer's tokens.",
                got=f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(outputs).__name__,
                expected=f"(B, {count + self.ahead} or more, vocabulary)",
            )
        stop = logits.shape[1] - self.ahead
        return logits[:, stop - count : stop].float()


def probable(target: Any) -> Any:
    """A target of tokens with their probability as the score; any other as it is.

    Args:
        target: resolved.

    Returns:
        The target to explain.
    """
    return replace(target, probability=True) if isinstance(target, Spoken) else target


def pieces(tokenizer: Any, ids: Int[Tensor, " n"]) -> list[str]:
    """The text that each token adds to the answer."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    before, found = "", []
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        found.append(text[len(before) :])
        before = text
    return found


def words(texts: Sequence[str]) -> list[list[int]]:
    """Tokens by the words that they spell: a new word begins with a space, or after one."""
    groups: list[list[int]] = []
    for place, text in enumerate(texts):
        begins = place == 0 or text[:1].isspace() or texts[place - 1][-1:].isspace()
        if begins or not groups:
            groups.append([])
        groups[-1].append(place)
    return [group for group in groups if "".join(texts[place] for place in group).strip()]


def _own(values: Float[Tensor, "B n V"], ids: Int[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    return values.gather(-1, ids[..., None])[..., 0]


def _has_text(which: Any) -> bool:
    return any(isinstance(one, str) for one in (which if isinstance(which, list | tuple) else [which]))


def _spelled(text: str, texts: Sequence[str]) -> list[int]:
    """The tokens that spell the first occurrence of a text, which is a word of its own if there is such."""
    answer = "".join(texts)
    padded = f" {answer} ".find(f" {text.strip()} ")
    start = padded if padded >= 0 else answer.find(text.strip())
    if start < 0 or not text.strip():
        raise TargetError(f"the answer does not have the text {text!r}.", got=repr(answer))
    stop, place, found = start + len(text.strip()), 0, []
    for number, piece in enumerate(texts):
        leading = len(piece) - len(piece.lstrip())
        if place + leading < stop and place + len(piece) > start and piece.strip():
            found.append(number)
        place += len(piece)
    return found


def _numbered(number: int, units: Sequence[list[int]]) -> list[int]:
    if not -len(units) <= number < len(units):
        raise TargetError("the answer has no such token.", got=number, expected=f"a number below {len(units)}")
    return units[number]


def _no_tokenizer(asked: str) -> TargetError:
    return TargetError(
        "a text needs the model's tokenizer.",
        got=asked,
        expected="Token(..., tokenizer=processor), or a model of seewhy.load, which brings it",
        do="pass tokenizer=, or name tokens by their numbers",
    )
