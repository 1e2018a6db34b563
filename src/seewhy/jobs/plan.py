"""What a run does, as a file in its folder: a second run has the same plan or is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.errors import InputError
from seewhy.images.files import written_whole
from seewhy.images.preprocess import Preprocess

NAME = "plan.json"


@dataclass(frozen=True)
class Found:
    """What was worked out when the run began, and is kept.

    Attributes:
        method: the method; where "auto" was asked for the one it chose.
        layers: the labels of the calls that are looked at; none for a method that looks at no layer.
        reason: why these.
        kind: what the model's scores are; None where it does not give a score for each class.
        classes: their names; None where they are not known.
        size: the input's (H, W); None where it differs.
    """

    method: str
    layers: tuple[str, ...]
    reason: str
    kind: str | None
    classes: tuple[str, ...] | None
    size: tuple[int, ...] | None


@dataclass(frozen=True)
class Plan:
    """All that the rows depend on.

    Attributes:
        source: what the source says of itself.
        model: the name of the model, or of its class.
        weights: a digest of its parameters and buffers.
        method: as asked for.
        target: the rule for what is explained.
        options: further ones of `Explainer`.
        preprocess: how a photograph becomes an input.
        seed: of random weights and of methods that draw.
        batch_size: images at once.
        part_size: images in a part of the table.
        check: whether each map is held against chance.
        versions: of the libraries.
        found: what was worked out.
    """

    source: Mapping[str, Any]
    model: str
    weights: str
    method: str
    target: Any
    options: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    seed: int
    batch_size: int
    part_size: int
    check: bool
    versions: Mapping[str, str]
    found: Found

    @property
    def seen_through(self) -> Preprocess:
        """How a photograph becomes an input."""
        return Preprocess(**{name: _tuple(value) for name, value in self.preprocess.items()})

    @property
    def count(self) -> int | None:
        """How many samples there are; None for a stream."""
        count: int | None = self.source["samples"]
        return count

    @property
    def parts(self) -> int | None:
        """How many parts the finished table has; None for a stream."""
        return None if self.count is None else -(-self.count // self.part_size)

    def batches(self, part: int) -> range:
        """The numbers of the batches in a part."""
        each = self.part_size // self.batch_size
        end = (part + 1) * each
        return range(part * each, end if self.count is None else min(end, -(-self.count // self.batch_size)))

    def samples(self, part: int) -> int:
        """How many samples a part has; of a stream as many as all but its last one."""
        start = part * self.part_size
        return self.part_size if self.count is None else min(self.part_size, self.count - start)

    def part(self, batch: int) -> int:
        """The part that a batch belongs to."""
        return batch * self.batch_size // self.part_size

    def missing(self, done: Container[int]) -> list[int]:
        """The numbers of the batches that are in no finished part, of a source whose count is known."""
        parts = range(self.parts or 0)
        return [batch for part in parts if part not in done for batch in self.batches(part)]

    def positions(self, batch: int) -> range:
        """The positions of the samples in a batch."""
        end = (batch + 1) * self.batch_size
        return range(batch * self.batch_size, end if self.count is None else min(end, self.count))

    def write(self, out: Path) -> None:
        """Write it into a run's folder."""
        with written_whole(out / NAME) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, out: Path) -> Plan:
        """The plan in a run's folder.

        Raises:
            InputError: if there is none.
        """
        try:
            content = json.loads((out / NAME).read_text(encoding="utf-8"))
            found = {name: _tuple(value) for name, value in content.pop("found").items()}
            return cls(**content, found=Found(**found))
        except FileNotFoundError as error:
            raise InputError(f"{out}: no run has written here.", expected=f"a folder with {NAME}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{out / NAME}: is no plan of this version of seewhy.", got=str(error)) from error


def check_same(before: Plan, now: Mapping[str, Any], out: Path) -> None:
    """Refuse to go on with another plan.

    Args:
        before: the plan in the folder.
        now: the fields of the plan that is asked for.
        out: the folder.

    Raises:
        InputError: names each line that differs.
    """
    kept = dict(_lines(dataclasses.asdict(before)))
    asked = dict(_lines(json.loads(json.dumps(now))))
    differing = [
        f"{name}: {kept.get(name)!r} there, {asked.get(name)!r} now"
        for name in dict.fromkeys((*asked, *kept))
        if not name.startswith("found.") and kept.get(name) != asked.get(name)
    ]
    if differing:
        raise InputError(
            f"{out}: holds the results of another plan.",
            got="; ".join(differing),
            do="the same command again goes on; for another plan name another folder",
        )


def _lines(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, each under its path."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _lines(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, list(content) if isinstance(content, tuple) else content


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
