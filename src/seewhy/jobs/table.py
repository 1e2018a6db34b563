"""The results of a run, finished or not, as a table that can be asked."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.errors import InputError, MissingExtra
from seewhy.jobs import analysis, overlays, samples, sink
from seewhy.jobs.plan import Plan
from seewhy.jobs.reading import photo_of
from seewhy.jobs.sources import Sample, Source, picture_at, source_of
from seewhy.results import Explanation

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 256  # rows that are read together where all are gone through

Row = dict[str, Any]


class Table:
    """Rows of a run, each of one image and target. Reading is put off until it is asked for.

        table = seewhy.jobs.open("why/")
        wrong = table.filter(table["predicted"] != table["label"]).sort("probability", descending=True)
        wrong[0].heatmap, wrong.overlay(0), wrong[:100].to_pandas()

    Args:
        out: the folder. It is kept as an attribute.
        plan: what the run does. It is kept as an attribute.
        parts: the files of the table, in order.
        rows: the numbers of the run's rows that the table has; None is all of them.
    """

    def __init__(self, out: Path, plan: Plan, parts: Sequence[_Part], rows: NDArray[np.int64] | None = None) -> None:
        self.out, self.plan = out, plan
        self._parts, self._rows = tuple(parts), rows

    @classmethod
    def of(cls, out: str | Path) -> Table:
        """The rows that are there in a run's folder.

        Args:
            out: the folder.

        Returns:
            The table.

        Raises:
            InputError: if no run has written there.
        """
        folder = Path(out)
        plan = Plan.read(folder)
        return cls(
            folder, plan, [_Part(number, path, *sink.counts(path)) for number, path in sink.parts(folder).items()]
        )

    @property
    def images(self) -> int:
        """How many samples of the run are done."""
        return sum(part.samples for part in self._parts)

    @property
    def complete(self) -> bool:
        """Whether the run is finished."""
        if self.plan.parts is None:
            return bool(self._parts) and self._parts[-1].samples < self.plan.part_size
        return len(self._parts) == self.plan.parts

    @cached_property
    def errors(self) -> int:
        """How many of the rows are errors."""
        return int(np.count_nonzero(self["status"] == "error"))

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._schema.names)

    def filter(self, keep: Any = None, /, **equal: Any) -> Table:
        """The rows that fit.

        Args:
            keep: a truth value for each row; None keeps all.
            **equal: columns with the value, or a list of values, that they shall have: `label="cat", status="ok"`.

        Returns:
            A table of these rows, in the same order.

        Raises:
            InputError: for another number of truth values, and for a column that there is not.
        """
        found = np.ones(len(self), bool) if keep is None else np.asarray(keep, bool)
        if found.shape != (len(self),):
            raise InputError("there is one truth value for each row.", got=found.shape, expected=f"({len(self)},)")
        if equal:
            read = self.to_arrow(list(equal))
            for name, value in equal.items():
                wanted = value if isinstance(value, list | tuple | set) else [value]
                mask = pc.is_in(read[name], pa.array(list(wanted), read.schema.field(name).type))
                found &= mask.to_numpy(zero_copy_only=False)
        return self._at(self._numbers[found])

    def sort(self, by: str, *, descending: bool = False) -> Table:
        """The rows in the order of a column.

        Args:
            by: the name of the column.
            descending: whether the largest comes first.

        Returns:
            A table of the same rows. Those without a value come last; equal ones stay in order.

        Raises:
            InputError: for a column that there is not.
        """
        order = pc.sort_indices(self.to_arrow([by]), [(by, "descending" if descending else "ascending")])
        return self._at(self._numbers[order.to_numpy()])

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows as a table of pyarrow.

        Args:
            columns: which; None is all of them.

        Returns:
            The table, in memory.

        Raises:
            InputError: for a column that there is not.
        """
        names = list(columns) if columns is not None else self.columns
        if unknown := [name for name in names if name not in self.columns]:
            raise InputError("there is no such column.", got=", ".join(unknown), expected=", ".join(self.columns))
        schema = pa.schema([self._schema.field(name) for name in names])
        if self._rows is None:
            found = [pq.read_table(part.path, columns=names) for part in self._parts]
            return (
                pa.concat_tables([each.replace_schema_metadata() for each in found]) if found else schema.empty_table()
            )
        ends = np.cumsum([part.rows for part in self._parts])
        owner = np.searchsorted(ends, self._rows, side="right")
        tables, places = [schema.empty_table()], [np.empty(0, np.int64)]
        for number in np.unique(owner):
            here = np.flatnonzero(owner == number)
            part = self._parts[number]
            read = pq.read_table(part.path, columns=names).replace_schema_metadata()
            tables.append(read.take(self._rows[here] - (ends[number] - part.rows)))
            places.append(here)
        return pa.concat_tables(tables).take(np.argsort(np.concatenate(places), kind="stable"))

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows as a data frame of pandas.

        Args:
            columns: which; None is all of them.

        Returns:
            The data frame.

        Raises:
            InputError: for a column that there is not.
            MissingExtra: if pandas is not installed.
        """
        try:
            import pandas  # noqa: F401  # pyarrow's own message does not say how to install it
        except ImportError as error:
            raise MissingExtra.of("pandas", "jobs") from error
        return self.to_arrow(columns).to_pandas()

    def to_fiftyone(self, name: str | None = None, *, persistent: bool = False) -> Any:
        """The pictures as a dataset of FiftyOne, to be looked at in its app: `fiftyone.launch_app(dataset)`.

        Each picture is a sample with `ground_truth`, `prediction` and, for each of its targets, `heatmap` over the
        whole picture and `hot`, the boxes around what is hot: `heatmap_2` and `hot_2` for the second one, and so on.
        Rows that are errors are samples tagged "error". The other columns are fields.

        Args:
            name: of the dataset; None lets FiftyOne choose.
            persistent: whether FiftyOne keeps it beyond its session.

        Returns:
            The dataset.

        Raises:
            MissingExtra: if fiftyone is not installed.
            InputError: for a picture that is no file here.
        """
        return samples.dataset(self, name, persistent=persistent)

    def row(self, number: int) -> Row:
        """One row.

        Args:
            number: of the row, from 0; negative numbers count from the end.

        Returns:
            Its values, by the names of the columns.
        """
        return self[number : number + 1 or None].to_arrow().to_pylist()[0]  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return sum(part.rows for part in self._parts) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    @overload
    def __getitem__(self, index: str) -> NDArray[Any]: ...
    def __getitem__(self, index: int | slice | str) -> Explanation | Table | NDArray[Any]:
        """A row as an explanation of one image; some rows; or the values of a column."""
        if isinstance(index, str):
            values: NDArray[Any] = self.to_arrow([index])[index].to_numpy(zero_copy_only=False)
            return values
        if isinstance(index, slice):
            return self._at(self._numbers[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a table of {len(self)}")
        return self._explanation(self.row(index))

    def __iter__(self) -> Iterator[Explanation]:
        """Every row that is no error, as an explanation."""
        for start in range(0, len(self), _AT_ONCE):
            for row in self[start : start + _AT_ONCE].to_arrow().to_pylist():
                if row["status"] == "ok":
                    yield self._explanation(row)

    def __repr__(self) -> str:
        of = "?" if self.plan.count is None else f"{self.plan.count:,}"
        state = "complete" if self.complete else f"unfinished: {self.images:,} of {of} images"
        return f"Table({str(self.out)!r}, {len(self):,} rows, {self.plan.found.method}, {state})"

    def overlay(self, number: int, *, source: Any = None, **options: Any) -> Image.Image:
        """The heatmap of a row over its photograph.

        Args:
            number: of the row.
            source: the source of the run; None reads the photograph from the row's path.
            **options: those of `seewhy.render.overlays`.

        Returns:
            A picture of the photograph's size.

        Raises:
            InputError: for a row that is an error, and for a photograph that is not there.
        """
        explanation = self[number]
        photo = self.photo(number, source=source)
        frame = self.plan.seen_through.frame(photo.size)
        return dataclasses.replace(explanation, frames=(frame,)).overlay([photo], **options)[0]

    def photo(self, number: int, *, source: Any = None) -> Image.Image:
        """The photograph of a row.

        Args:
            number: of the row.
            source: the source of the run; None reads the photograph from the row's path.

        Returns:
            The photograph, upright.

        Raises:
            InputError: if it is not there.
        """
        row = self[number : number + 1 or None].to_arrow(["key", "path"]).to_pylist()[0]
        if source is not None:
            opened: Source = source if hasattr(source, "described") else source_of(source)
            (sample,) = opened.samples([self._position(number)])
        elif row["path"]:
            sample = Sample(row["key"], row["path"], content=picture_at(row["path"]))
        else:
            raise InputError(
                f"{row['key']}: the run's source has no paths.", do="pass it: table.overlay(number, source=dataset)"
            )
        if isinstance(sample.content, Tensor) and sample.content.is_floating_point():
            raise InputError(
                f"{sample.key}: is a model's input, not a photograph.", do="explanation.overlay(photos) of the row"
            )
        return photo_of(sample)

    def save_overlays(self, which: str = "all", *, source: Any = None) -> list[Path]:
        """Write the overlays of some rows into the folder `overlays`. What is there already stays.

        Args:
            which: "all"; "wrong:200", the 200 wrong predictions that the model is surest of; or "worst:200", the 200
                rows with the least share of heat in the object's box, or, where the source has no boxes, the least
                probability.
            source: the source of the run; None reads the photographs from the rows' paths.

        Returns:
            The files: the key, "-" and the target, ".jpg".

        Raises:
            InputError: for another word, and for a photograph that is not there.
        """
        return overlays.save(self, which, source)

    def summary(self) -> analysis.Summary:
        """What there is to say of each label.

        Returns:
            For each label: accuracy, mean heatmap, mean entropy, share of the heat at the border. `print` shows a
            table.
        """
        return analysis.summary(self)

    def mean_map(self, label: str | None = None) -> Float[Tensor, "h w"]:
        """The mean heatmap of the rows with a label.

        Args:
            label: which rows; None is all of them.

        Returns:
            (h, w), of heatmaps that are each in [0, 1].

        Raises:
            InputError: if there are no such rows.
        """
        return analysis.mean_map(self, label)

    def clusters(self, label: str | None = None, count: int | None = None) -> analysis.Clusters:
        """Groups of alike heatmaps, which may be groups of alike reasons: see `seewhy.jobs.analysis.clusters`.

        Args:
            label: which rows; None is all of them.
            count: how many groups; None finds the number.

        Returns:
            The groups, the largest first.

        Raises:
            MissingExtra: if scikit-learn is not installed.
            InputError: for fewer than four maps.
        """
        return analysis.clusters(self, label, count)

    def suspects(self) -> list[analysis.Suspect]:
        """Right answers for odd reasons: see `seewhy.jobs.analysis.suspects`.

        Returns:
            The rows that are odd, each with why, the oddest first.
        """
        return analysis.suspects(self)

    @cached_property
    def _schema(self) -> pa.Schema:
        if not self._parts:
            return sink.columns(pa.schema([]))
        return pq.read_schema(self._parts[0].path).remove_metadata()

    @property
    def _numbers(self) -> NDArray[np.int64]:
        """The rows of the table, by their number in the run's."""
        return np.arange(len(self)) if self._rows is None else self._rows

    def _at(self, rows: NDArray[np.int64]) -> Table:
        return Table(self.out, self.plan, self._parts, rows)

    def _position(self, number: int) -> int:
        """Where in the source the sample of a row is: a sample's rows follow one another."""
        row = int(self._numbers[number])
        for part in self._parts:
            if row < part.rows:
                keys = pq.read_table(part.path, columns=["key"])["key"].slice(0, row + 1).to_pylist()
                changes = sum(first != second for first, second in itertools.pairwise(keys))
                return int(part.number * self.plan.part_size + changes)
            row -= part.rows
        raise IndexError(number)

    def _explanation(self, row: Row) -> Explanation:
        if row["status"] != "ok":
            raise InputError(f"{row['key']}: could not be explained.", got=row["error"])
        grid = torch.tensor(row["map"], dtype=torch.float32).reshape(1, *row["map_shape"])
        known = row["predicted"] == row["target"] and row["probability"] is not None
        return Explanation(
            maps={" + ".join(row["layers"]): grid},
            scores=torch.tensor([row["score"]]),
            outputs=None,
            targets=row["target"],
            method=row["method"],
            size=self.plan.found.size or tuple(row["map_shape"]),
            probabilities=torch.tensor([row["probability"]]) if known else None,
            labels=self.plan.found.classes,
            files=(row["path"] or row["key"],),
            note=self.plan.found.reason,
        )


def opened(out: str | Path) -> Table:
    """The table in a run's folder: `seewhy.jobs.open("why/")`. The run may be going on, or have been stopped.

    Args:
        out: the folder.

    Returns:
        The table, of the rows that are there.

    Raises:
        InputError: if no run has written there.
    """
    return Table.of(out)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A file of the table: its number, and how many rows and samples are in it."""

    number: int
    path: Path
    rows: int
    samples: int
