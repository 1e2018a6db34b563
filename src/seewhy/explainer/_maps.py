"""What methods make of a recorded forward: the maps of every layer and target, and explanations of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seewhy import targets
from seewhy._types import CallLabel
from seewhy.errors import MethodError
from seewhy.evidence import Forward, requests
from seewhy.geometry.placement import Placement
from seewhy.hooks.nested import rebuild
from seewhy.methods import smooth
from seewhy.methods.fuse import Fuse
from seewhy.methods.registry import Accounted, Method
from seewhy.results import Explanation

_INPUT = CallLabel("input")  # what a map that lies on the input goes by
_WORDS = CallLabel("words")  # what a map of all that is said at the pictures' tokens goes by
_ATTENTION = CallLabel("attention")  # what a map of all attention over the image's tokens goes by


class _Drawn(NamedTuple):
    """What methods drew: maps by method and layer, (B, [T,] *grid), and the gaps (B, [T]) of those that add up."""

    maps: dict[str, dict[CallLabel, Tensor]]
    gaps: dict[str, Tensor]


@dataclass(frozen=True)
class Drawing:
    """Methods, and what the caller wants of their maps.

    Attributes:
        methods: all of them.
        fuse: how several layers become one heatmap; None is each method's own way.
        augment_smooth: whether maps are means over views of the images.
        draws_anew: whether each call draws other random numbers: the caller passed a generator.
        labels: a name per class.
    """

    methods: Sequence[Method]
    fuse: Fuse | None
    augment_smooth: bool
    draws_anew: bool
    labels: Sequence[str] | None

    def explained(self, forward: Forward) -> dict[str, Explanation]:
        """What each method makes of a recorded forward, by its name: a closed computation, which `export` traces.

        Args:
            forward: recorded for these methods, inside a session.

        Returns:
            Explanations that know nothing of the caller's photographs and model.
        """
        self._check_alignment(forward)
        asked = {found.ask: forward.asked(found.ask) for found in self.methods}
        drawn = self._smoothed(asked) if self.augment_smooth else self._maps(asked)
        likely, call = forward.probabilities, forward.call
        outputs = rebuild(forward.outputs, Tensor.detach)
        maps = {name: _stacked(by_call, forward) for name, by_call in drawn.maps.items()}
        return {
            found.name: Explanation(
                maps={str(label): grid for label, grid in maps[found.name].items()},
                scores=asked[found.ask].scores.detach(),
                probabilities=None if likely is None else likely.detach(),
                outputs=outputs,
                targets=asked[found.ask].target,
                method=found.name,
                size=call.size,
                extents=call.canvas.extents if call.canvas and (found.layered or found.attends) else None,
                placements=_placements(maps[found.name], forward) if found.layered else {},
                fuse=self.fuse or ("sum" if _add_up(found, maps[found.name], forward) else found.fuse),
                labels=self.labels,
                axes=call.axes,
                note=forward.plan.note if found.layered else "",
                gap=drawn.gaps.get(found.name),
            )
            for found in self.methods
        }

    def _check_alignment(self, forward: Forward) -> None:
        """Refuse methods that lay a layer's maps over the images where these do not lie as the model sees them."""
        call = forward.call
        rows = next((str(label) for label, grid in forward.plan.grids.items() if grid.rows is not None), "")
        for found in self.methods:
            masks = {"activations", "score"} <= {*found.needs}
            if rows and (masks or found.staged or {"weights", "bias_gradients"} & {*found.needs}):
                raise MethodError(
                    f"{found.name} takes a layer to have one row for each image, and this model makes several of one.",
                    got=f"rows such as {rows}",
                    do="choose a method of a layer's gradients, such as grad_cam, or one without a layer, such as rise",
                )
            if masks and forward.plan.placements:
                label, place = next(iter(forward.plan.placements.items()))
                raise MethodError(
                    f"{found.name} masks the images with a layer's maps, and this model moves its images first.",
                    got=f"{label} {place}",
                    do="choose a method of gradients, such as layer_cam, or one without a layer, such as rise",
                )
            if call.canvas is not None and masks:
                raise MethodError(
                    f"{found.name} masks the images with a layer's maps, and this model lays its images out anew.",
                    got=f"images of {call.size} on a canvas of {call.canvas.space}",
                    do="choose a method of gradients, such as layer_cam, or one without a layer, such as rise",
                )

    def _maps(self, asked: Mapping[Any, Forward]) -> _Drawn:
        """Each method's map at each layer for every target: (B, [T,] *grid), signed."""
        every = _Drawn({}, {})
        for number, (ask, forward) in enumerate(asked.items(), 1):
            methods = [found for found in self.methods if found.ask == ask]
            drawn = self._drawn(forward, methods, last=number == len(asked))
            every = _Drawn(every.maps | drawn.maps, every.gaps | drawn.gaps)
        return every

    def _drawn(self, forward: Forward, methods: Sequence[Method], *, last: bool) -> _Drawn:
        """The maps of methods that explain the same scores; the graph is kept unless this is the `last` use of it."""
        needs = {need for found in methods for need in found.needs}
        generator = forward.settings.generator
        state = generator.get_state()
        drawn: dict[str, dict[CallLabel, list[Tensor]]] = {found.name: {} for found in methods}
        gaps: dict[str, list[Tensor]] = {}
        for request in requests(forward, needs, keep_graph=not last):
            for found in methods:
                for label in _labels(found, forward):
                    generator.set_state(state)
                    here = request.at(label)
                    values = {need: here.give(need) for need in found.needs}
                    result = found.function(**values)
                    if isinstance(result, Accounted):
                        gaps.setdefault(found.name, []).append(result.gap)
                        result = result.maps
                    drawn[found.name].setdefault(label, []).append(result)
        if not self.draws_anew:
            generator.set_state(state)
        elif needs & {"generator", "noisy_gradients"}:  # the next call shall draw something else
            generator.set_state(state)
            generator.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        several = forward.scores.ndim == 2

        def together(found: list[Tensor]) -> Tensor:
            return torch.stack(found, 1) if several else found[0]

        maps = {name: {label: together(found) for label, found in layers.items()} for name, layers in drawn.items()}
        return _Drawn(maps, {name: together(found) for name, found in gaps.items()})

    def _smoothed(self, asked: Mapping[Any, Forward]) -> _Drawn:
        """The mean of the maps over all views of the inputs, each put back in place. It adds up to no score.

        The targets stay as they were; where they say where in the image, a mirrored view has their mirror images.
        """
        totals = self._maps(asked).maps
        views = smooth.views()
        first = next(iter(asked.values()))
        for view in views[1:]:
            turned = targets.mirrored if view.mirrored else _as_it_is
            again = first.again(first.call.seen_as(view.apply), turned(first.target))
            drawn = self._maps({ask: again.of(turned(forward.target)) for ask, forward in asked.items()}).maps
            totals = {
                name: {label: total + view.undo(drawn[name][label]) for label, total in layers.items()}
                for name, layers in totals.items()
            }
        means = {
            name: {label: total / len(views) for label, total in layers.items()} for name, layers in totals.items()
        }
        return _Drawn(means, {})


def _stacked(maps: Mapping[CallLabel, Tensor], forward: Forward) -> dict[CallLabel, Tensor]:
    """The maps of rows that are frames of one image as one map for each call: (B, [T,] frames, *grid)."""
    frames = forward.plan.frames
    taken = {row for rows in frames.values() for row in rows}
    found = {label: grid for label, grid in maps.items() if label not in taken}
    for call, rows in frames.items():
        if rows[0] in maps:
            found[call] = torch.stack(_of_every_frame(maps, rows, forward), -len(forward.call.space))
    return found


def _of_every_frame(maps: Mapping[CallLabel, Tensor], rows: Sequence[CallLabel], forward: Forward) -> list[Tensor]:
    """The maps of frames in their order; of calls that saw one each, nothing for the frames that none saw."""
    known = [forward.plan.grids[row].rows for row in rows]
    if any(one is None or one.count > 1 for one in known):
        return [maps[row] for row in rows]
    by_frame = {one.frame: maps[row] for one, row in zip(known, rows, strict=True) if one is not None}
    return [by_frame.get(frame, torch.zeros_like(maps[rows[0]])) for frame in range(forward.call.space[0])]


def _add_up(method: Method, maps: Mapping[CallLabel, Tensor], forward: Forward) -> bool:
    """Whether a method's maps are of parallel layers, each with a part of what speaks for the score."""
    return len(maps) > 1 and method.layered and not method.staged and forward.plan.added


def _placements(maps: Mapping[CallLabel, Tensor], forward: Forward) -> dict[str, Placement]:
    """Where the maps lie that do not cover the whole input as it is."""
    known = forward.plan.placements
    return {str(label): known[label] for label in maps if label in known}


def _labels(method: Method, forward: Forward) -> tuple[CallLabel, ...]:
    """The calls that `method` looks at; all that were recorded where the caller named the layers."""
    if not method.layered:
        return (_ATTENTION if method.attends else _WORDS if "readouts" in method.needs else _INPUT,)
    planned = forward.plan.stages if method.staged else forward.plan.chosen
    return planned or tuple(forward.activations)


def _as_it_is(target: targets.Target) -> targets.Target:
    return target
