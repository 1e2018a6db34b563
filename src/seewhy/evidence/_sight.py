"""What a model of language sees: its layers, and which of its tokens lie where in the pictures.

Nothing here knows a family of models. The layers are those that one forward calls with a vector for each token of the
prompt. The tokens of the pictures are those whose vectors change where a picture changes, before the first layer; with
each token of the vision tower looking at itself alone, they change where they lie, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from seewhy.engine.attention import of_itself
from seewhy.engine.per_model import PerModel
from seewhy.engine.session import Session
from seewhy.errors import LayerError, ModelError
from seewhy.geometry.lattice import Lattice, TokenGrid, laid_out, token_grid
from seewhy.hooks.attach import Finish, Passed, around
from seewhy.hooks.nested import tensors
from seewhy.inputs.pictures import View
from seewhy.inputs.prompted import Prompted

_rows: PerModel[dict[tuple[Any, ...], tuple[int, ...]]] = PerModel(dict)
_grids: PerModel[dict[tuple[Any, ...], TokenGrid]] = PerModel(dict)


class _Enough(Exception):
    """The first layer was reached: nothing after it is of interest."""


def sight(run: Session) -> Prompted:
    """The session's call, with the model's layers and the row of each picture. Found once for a shape of call.

    Raises:
        ModelError: if the model has no layers that the prompt's tokens go through.
    """
    call = run.call
    assert isinstance(call, Prompted)
    call = replace(call, layers=_layers(run, call))
    if call.batch == 1:
        return call
    kept, key = _rows.of(run.model), _key(call)
    if key not in kept:
        kept[key] = _Changes(run, call).rows()
    pairs = zip(call.pictures, kept[key], strict=True)
    return replace(call, pictures=tuple(replace(picture, row=row) for picture, row in pairs))


def places(run: Session, call: Prompted) -> TokenGrid:
    """Where the tokens of a call lie in its pictures. Found once for a shape of call.

    Raises:
        LayerError: if they have no places.
    """
    kept, key = _grids.of(run.model), _key(call)
    if key not in kept:
        kept[key] = token_grid(_Changes(run, call).lattices(), call.size)
    return kept[key]


def _key(call: Prompted) -> tuple[Any, ...]:
    """What the places of tokens depend on: the prompt, and the shapes and views of the pictures."""
    shapes = tuple((key, tuple(value.shape)) for key, value in call.kwargs.items() if isinstance(value, Tensor))
    return call.pictures, shapes, tuple(call.ids.flatten().tolist())


def _layers(run: Session, call: Prompted) -> tuple[str, ...]:
    """The last stack of modules that is called with a vector for each token of the prompt."""
    stacks = {
        f"{name}.{number}": name
        for name, module in run.model.named_modules()
        if isinstance(module, nn.ModuleList)
        for number in range(len(module))
    }
    ran: dict[str, list[str]] = {}

    def visit(name: str, passed: Passed) -> tuple[Passed, Finish]:
        first = next(tensors(passed), None)
        if first is not None and first.ndim == 3 and first.shape[:2] == call.ids.shape and first.is_floating_point():
            ran.setdefault(stacks[name], []).append(name)
        return passed, lambda _: None

    with run.aside(), torch.no_grad(), around(run.modules(tuple(stacks)), visit):
        run.run(call)
    answers = call.kwargs.get("decoder_input_ids")
    found = list(ran.values())
    if isinstance(answers, Tensor) and answers.shape == call.ids.shape and len(found) > 1:
        found.pop()  # the decoder's own layers, which happen to have as many tokens
    if not found:
        raise ModelError(
            "the model has no layers that the prompt's tokens go through.",
            got=type(run.model).__name__,
            expected=f"modules in a ModuleList that are called with {tuple(call.ids.shape)} vectors",
            do="pass a model that generates text, such as LlavaForConditionalGeneration",
        )
    return tuple(dict.fromkeys(found[-1]))


def _covered(view: View) -> tuple[float, float, float, float]:
    """The part of a view's box that whole patches cover."""
    top, left, bottom, right = view.box
    shares = [cells * (side // cells) / side for cells, side in zip(view.cells, view.size, strict=True)]
    return top, left, top + (bottom - top) * shares[0], left + (right - left) * shares[1]


def _no_places(count: int, view: View) -> LayerError:
    return LayerError(
        "the tokens that the model makes of a picture have no places in it.",
        got=f"{count} tokens for a view of {view.size[0]} x {view.size[1]} pixels, "
        f"{view.cells[0]} x {view.cells[1]} patches",
        expected="a token for each patch, or for each square of patches, as without a resampler or queries",
        do='method="grad_cam", which looks at the vision tower then; "occlusion" or "eagle", which change the picture; '
        "or pass grid=, a function from the tokens (B, L, C) of a layer to (B, C, *grid)",
    )


class _Changes:
    """How the vectors before the first layer change with the pictures, each token of the tower by itself."""

    def __init__(self, run: Session, call: Prompted) -> None:
        self.run, self.call = run, call
        generator = torch.Generator().manual_seed(0)
        self.views = [view for picture in call.pictures for view in picture.views]
        self.noise = {
            key: torch.randn(call.kwargs[key].shape, generator=generator).to(call.kwargs[key])
            for key in {view.key for view in self.views}
        }
        self.before = self._vectors(call)
        self.changed = (self._changes(lambda _: torch.ones(1, 1, dtype=torch.bool)) != 0).cpu()
        self.number = self._decoded([torch.tensor([[n]]) for n in range(len(self.views))], len(self.views))

    def rows(self) -> tuple[int, ...]:
        """The row of the batch that each picture is seen in."""
        found: list[int] = []
        place = 0
        for picture in self.call.pictures:
            batch, _ = (self.changed & (self.number == place)).nonzero().unbind(1)
            if not len(batch):
                raise LayerError("no token changes with a picture.", got=f"picture {len(found)} of the call")
            found.append(int(batch[0]))
            place += len(picture.views)
        return tuple(found)

    def lattices(self) -> list[list[list[Lattice]]]:
        """For each row, for each of its pictures, the tokens of its views.

        Raises:
            LayerError: if the tokens of a view have no places.
        """
        coded = self._laid_out(*(self._decoded(self._axis(axis), self._most(axis)) for axis in (0, 1)))
        found: list[list[list[Lattice]]] = [[] for _ in range(self.call.batch)]
        grids = iter(coded)
        for picture in self.call.pictures:
            pairs = [(view, next(grids)) for view in picture.views]
            if missing := [view for view, grid in pairs if grid is None]:
                raise _no_places(int((self.changed & (self.number == self.views.index(missing[0]))).sum()), missing[0])
            found[picture.row].append([Lattice(grid, _covered(view)) for view, grid in pairs if grid is not None])
        return found

    def _laid_out(self, row: Tensor, column: Tensor) -> list[Tensor | None]:
        """The tokens of each view in rows and columns, by the row and column of patches that each answers to."""
        found: list[Tensor | None] = []
        rows = [picture.row for picture in self.call.pictures for _ in picture.views]
        for place, (view, of) in enumerate(zip(self.views, rows, strict=True)):
            tokens = (self.changed & (self.number == place))[of].nonzero()[:, 0]
            found.append(laid_out(tokens, row[of, tokens], column[of, tokens], view.cells))
        return found

    def _axis(self, axis: int) -> list[Tensor]:
        """For each view the numbers of its rows or columns of patches."""
        return [torch.arange(view.cells[axis]).reshape((-1, 1) if axis == 0 else (1, -1)) for view in self.views]

    def _most(self, axis: int) -> int:
        return max(view.cells[axis] for view in self.views)

    def _vectors(self, call: Prompted) -> Tensor:
        kept: list[Tensor] = []

        def visit(_: str, passed: Passed) -> tuple[Passed, Finish]:
            kept.append(next(tensors(passed)).clone())
            raise _Enough

        with (
            torch.no_grad(),
            of_itself(),
            suppress(_Enough),
            around(self.run.modules(self.call.layers[:1]), visit),
        ):
            self.run.run(call)
        return kept[0]

    def _changes(self, mask: Callable[[int], Bool[Tensor, "#rows #columns"]]) -> Tensor:
        """By how much each vector changes, where the patches do that are in the mask of each view."""
        kwargs = self.call.kwargs | {key: self.call.kwargs[key].clone() for key in self.noise}
        for number, view in enumerate(self.views):
            grown = _grown(mask(number).expand(view.cells), view).to(kwargs[view.key])
            view.put(kwargs[view.key], view.of(kwargs[view.key]) + view.of(self.noise[view.key]) * grown)
        after = self._vectors(replace(self.call, kwargs=kwargs))
        return (after - self.before).float().square().sum(-1).double()

    def _decoded(self, labels: Sequence[Int[Tensor, "#rows #columns"]], count: int) -> Int[Tensor, "B L"]:
        """The label of the patches that each token answers to most.

        Labels are asked for bit by bit, in Gray code: neighbours differ in one bit alone, so that a token of several
        patches in a row gets the label of one of them.

        Args:
            labels: for each view, labels that go with its patches (rows, columns).
            count: how many labels there are.
        """
        coded = [label ^ (label >> 1) for label in labels]
        found = torch.zeros(self.before.shape[:2], dtype=torch.long)
        for bit in range(max(count - 1, 0).bit_length()):
            ones, zeros = (
                self._changes(lambda number, value=value, bit=bit: (coded[number] >> bit & 1) == value)  # type: ignore[misc]
                for value in (1, 0)
            )
            found |= (ones > zeros).long().cpu() << bit
        for shift in (1, 2, 4, 8, 16, 32):
            found ^= found >> shift
        return found


def _grown(marked: Tensor, view: View) -> Tensor:
    """A mask of patches (rows, columns) in the view's pixels; what is beyond the last whole patch is left alone."""
    grown = torch.zeros(view.size)
    down, across = (side // cells for side, cells in zip(view.size, view.cells, strict=True))
    whole = marked.repeat_interleave(down, 0).repeat_interleave(across, 1)
    grown[: whole.shape[0], : whole.shape[1]] = whole
    return grown
