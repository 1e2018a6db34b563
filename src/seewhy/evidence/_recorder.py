"""Records a model's forwards where methods want to look, and works out where that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from seewhy import targets
from seewhy._types import CallLabel, Fold
from seewhy.engine.per_model import PerModel
from seewhy.engine.session import Session
from seewhy.engine.tape import gradients, recording_from
from seewhy.errors import GradientError, LayerError, OutputError, warn
from seewhy.evidence._beside import share_beside
from seewhy.evidence._forward import Forward, Plan, Settings
from seewhy.evidence._proof import can_be_proven, laid_out, placements, taken_as_upright
from seewhy.evidence._provider import provider
from seewhy.geometry import choose_layer
from seewhy.geometry import grid as grids
from seewhy.geometry.grid import Grid
from seewhy.geometry.judge import NoPlaces
from seewhy.geometry.observe import Seen, look, observe
from seewhy.geometry.proof import Proof
from seewhy.hooks.select import check_ran
from seewhy.inputs import Inputs
from seewhy.inputs.prompted import Prompted
from seewhy.methods.registry import Method

_LITTLE = 0.05  # of what the image says to the score may pass beside a layer without a word
_PARALLEL = 8  # calls beside the best one that are tried: more are heads of other tasks

# by everything that decides where to look
_plans: PerModel[dict[tuple[Any, ...], Plan]] = PerModel(dict)


class Recorder:
    """Records forwards for some methods.

    Where to look is worked out once for a model, a shape of input and a kind of target, and kept with the model.

    Args:
        methods: what will be made of the forwards.
        layers: the layers to look at, by name; None chooses.
        settings: what the caller said on how evidence is gathered.
        context: makes what targets know of a call.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        layers: Mapping[str, nn.Module] | None,
        settings: Settings,
        context: Callable[[Inputs], targets.Context],
    ) -> None:
        self.methods, self.settings, self.context = methods, settings, context
        self.layers = None if layers is None else tuple(layers)
        self.needs = {need for found in methods for need in found.needs}
        self.providers = [provider(need) for need in self.needs]

    def first(self, run: Session, target: Any, *, afresh: bool = False) -> Forward:
        """The forward on the caller's inputs, recorded at the layers given, or at the best one.

        The best is the last layer with space that the score's gradient reaches. It is looked for from the end, once.
        What was recorded meanwhile is used, not recorded again, unless a method looks at earlier resolutions too.

        Args:
            run: the session.
            target: what is explained.
            afresh: do not use the plan of an earlier call.
        """
        plans, key = _plans.of(run.model), self._key(run.call, target)
        if key in plans and plans[key].own:
            del plans[key]
        if not self._chooses:
            if key not in plans:
                plans[key] = self._named(run)
            for told in plans[key].nowhere.values():  # again: what the map lacks, it lacks each time
                warn(told)
            return self.record(run, run.call, target, plans[key])
        if key in plans and not afresh:
            return self.record(run, run.call, target, plans[key])
        forward = self._chosen(run, target)
        plans[key] = forward.plan
        return forward

    def has_plan(self, run: Session, target: Any) -> bool:
        """Whether an earlier call has chosen the layers that `first` will look at."""
        return self._chooses and self._key(run.call, target) in _plans.of(run.model)

    @property
    def _chooses(self) -> bool:
        return self.layers is None and any(found.layered for found in self.methods)

    def record(self, run: Session, call: Inputs, target: Any, plan: Plan) -> Forward:
        """Run the model once on `call`, record it as planned, and score its output."""
        layers = run.modules(plan.layers)
        more = {name: found for each in self.providers if each.layers for name, found in each.layers(run.model).items()}
        starts = {each.start for each in self.providers}
        whole = "forward" in starts
        # with nothing to record from, the graph still tells what kind the scores are
        leaf = any(found.differentiates for found in self.methods) or call.images[0].is_floating_point()
        from_image = "image" in starts or (leaf and not (layers or more or starts & {"forward", "watch"}))
        with ExitStack() as stack:
            if whole and isinstance(call, Prompted):  # of a model of language: what its layers do, not how it sees
                whole = False
                stack.enter_context(recording_from(call.layers[0], run.model.get_submodule(call.layers[0])))
            watches = {each.watch for each in self.providers if each.watch}
            watched = {watch: stack.enter_context(watch(run, layers, self.needs)) for watch in watches}
            stack.enter_context(self.settings.balance)
            tape = run.record(more | layers, call, from_start=whole, from_input=from_image)
        check_ran(layers, [label.name for label in tape.activations])
        definite = self.resolved(target, tape.outputs, call)
        scores = targets.checked(definite(tape.outputs), call.batch)
        record, fold_of = partial(self.record, run), partial(self._fold, run)
        return Forward(run, call, plan, tape, definite, scores, watched, self.settings, record, fold_of)

    def resolved(self, target: Any, outputs: Any, call: Inputs) -> targets.BaseTarget:
        """The target made definite; none where no method uses a score and the output has none to take by itself."""
        scored = any(found.scored for found in self.methods) or not self.methods
        try:
            return targets.resolve(target, outputs, self.context(call))
        except OutputError:
            if scored or target is not None:
                raise
            return targets.Unasked(call.batch)

    def _named(self, run: Session) -> Plan:
        """The plan to look at the layers that the caller named.

        Of several images, or several rows for an image, it holds the calls and rows that answer to the image meant.
        """
        plan = Plan(self.layers or ())
        if not plan.layers or self.settings.grid is not None:
            return plan
        calls = [call for call in self._seen(run, plan) if call.label.name in plan.layers and call.grid is not None]
        several = run.call.count > 1
        if not calls or not (several or any(call.grid and call.grid.rows for call in calls)):
            return plan
        verdicts = self._verdicts(run, calls, plan.seen)
        kept = [call for call in calls if isinstance(verdicts[call.label], Proof)]
        if not kept:
            verdict = verdicts[calls[0].label]
            assert isinstance(verdict, NoPlaces)
            raise LayerError(
                f"{calls[0].label} is no layer to draw a map from: {verdict.reason}.",
                got=f"an image {run.call.space}"
                + (f", {run.call.names(run.model)[run.call.which]!r}" if several else ""),
                expected="a layer that answers to places of it",
                do="choose another layer, or pass grid=, which says how the layer lies over the input",
            )
        return _plan(kept, kept, [], "", verdicts)

    def _chosen(self, run: Session, target: Any) -> Forward:
        """The forward recorded at the best layer, and the plan to look there again."""
        with run.aside():
            observed = observe(run)
        seen = observed.seen
        dimensions = 2 + len(run.call.space)
        answers = {output.shape[1] for output in targets.answers(observed.outputs) if output.ndim >= dimensions}
        candidates = choose_layer.candidates(seen, run.call.space, answers)
        staged = any(found.staged for found in self.methods)
        refused: list[tuple[Seen, NoPlaces]] = []
        groups = list(choose_layer.growing(candidates))
        needed = any(found.runs_backward for found in self.methods)
        # a method that needs no gradient looks where one arrives, too; where none does, at the last layer of all
        rounds = [(group, True) for group in groups] + ([] if needed else [(group, False) for group in groups[:1]])
        for group, strict in rounds:
            names = tuple(dict.fromkeys(call.label.name for call in group))
            known = {call.label: call.grid for call in group if call.grid is not None}
            forward = self.record(run, run.call, target, Plan(names, grids=known))
            reached = _reached(forward, known, needed=needed or (strict and forward.columns.requires_grad))
            possible = [call for call in group if bool(reached[call.label].any())]
            verdicts = self._verdicts(run, possible, seen)
            refused += [(call, verdict) for call in possible if isinstance(verdict := verdicts[call.label], NoPlaces)]
            best = next((call for call in possible if not isinstance(verdicts[call.label], NoPlaces)), None)
            if best is None:
                continue
            chosen = self._beside(forward, best, group, candidates, reached)
            added = len(chosen) == 1
            if added:
                chosen = self._parallel(run, forward, best, observed.beside(best, _others(best, candidates, seen)))
            stages = choose_layer.stages(seen, best, answers) if staged else []
            verdicts |= self._verdicts(run, [call for call in (*chosen, *stages) if call.label not in verdicts], seen)
            chosen = [call for call in chosen if not isinstance(verdicts[call.label], NoPlaces)]
            stages = [call for call in stages if not isinstance(verdicts[call.label], NoPlaces)]
            reason = choose_layer.reason(
                best,
                candidates,
                parallel=[call for call in chosen if added and call is not best],
                proven=self._proves(run, best),
                refused=bool(refused),
                reached=self._is_reached(forward, best),
            )
            plan = _plan([*chosen, *stages], chosen, stages, reason, verdicts, added=added)
            if staged or not {call.label for call in chosen} <= forward.tape.activations.keys():
                forward = self.record(run, run.call, forward.target, plan)
            if run.call.canvas is None and observed.pass_beside(chosen):
                plan = replace(plan, reason=plan.reason + _said_beside(share_beside(forward, plan.chosen)))
            return forward.at(plan)
        if refused:
            call, verdict = refused[0]
            raise LayerError(
                f"no layer shows where in the input it looks. Of {call.label}, {verdict.reason}.",
                got=", ".join(str(call.label) for call, _ in refused[:5]),
                expected="a layer whose entries answer to places of the input, in their order",
                do="pass grid=, which says how a layer lies over the input, or a method on the input, such as rise",
            )
        raise GradientError(
            "the score's gradient is zero at every layer with space.",
            got=", ".join(str(call.label) for call in candidates[:3]) + (" and so on" if len(candidates) > 3 else ""),
            expected="a score that the layers before it have a say in",
            do="look for a head with all-zero weights (untrained), a detach(), a saturated output; or pass layers=",
        )

    def _is_reached(self, forward: Forward, call: Seen) -> bool:
        """Whether the score's gradient is what chose a call, and not the lack of any."""
        if call.grid is None:
            return True
        return bool(_reached(forward, {call.label: call.grid}, needed=True)[call.label].any())

    def _beside(
        self,
        forward: Forward,
        best: Seen,
        group: Sequence[Seen],
        candidates: Sequence[Seen],
        reached: Mapping[CallLabel, Tensor],
    ) -> list[Seen]:
        """`best`, with the levels of its pyramid, and with parallel calls that other images or targets are read from.

        In the order of the calls. Calls are parallel if none of them is made of another one.
        """
        levels = choose_layer.pyramid(best, candidates)
        if len(levels) > 1 and forward.parallel(tuple(level.label for level in levels)):
            return levels
        chosen, missing = [best], ~reached[best.label]
        for call in group:
            labels = tuple(found.label for found in reversed([*chosen, call]))
            if call not in chosen and bool((missing & reached[call.label]).any()) and forward.parallel(labels):
                chosen.append(call)
                missing &= ~reached[call.label]
        return chosen[::-1]

    def _parallel(self, run: Session, forward: Forward, best: Seen, others: Sequence[Seen]) -> list[Seen]:
        """`best`, and those of the others, by which the input passes beside it, that the score's gradient reaches."""
        same = [call for call in others if call.label.name == best.label.name]  # perhaps one for each frame of a video
        others = [*same, *[call for call in others if call not in same][:_PARALLEL]]
        if not others:
            return [best]
        names = tuple(dict.fromkeys(call.label.name for call in (best, *others)))
        known = {call.label: call.grid for call in others if call.grid is not None}
        again = self.record(run, run.call, forward.target, Plan(names, grids=known))
        reached = _reached(again, known, needed=True)
        taken = [call for call in others if bool(reached[call.label].any())]
        return sorted([best, *taken], key=lambda call: call.number)

    def _proves(self, run: Session, call: Seen) -> bool:
        """Whether it takes changed copies of an image to see where a call lies."""
        return self.settings.grid is None and can_be_proven(run) and not call.plain

    def _verdicts(self, run: Session, calls: Sequence[Seen], seen: Sequence[Seen]) -> dict[CallLabel, Proof | NoPlaces]:
        """How these calls lie; as they are where that cannot be proven, or the caller has said it."""
        if self.settings.grid is not None or not can_be_proven(run):
            return taken_as_upright(calls, run.call.space)
        return placements(run, calls, seen, batch_size=self.settings.limits.batch_size)

    def _key(self, call: Inputs, target: Any) -> tuple[Any, ...]:
        """What decides where to look: the methods, what the caller said, the inputs' shape, the kind of target."""
        grid = self.settings.grid if isinstance(self.settings.grid, tuple) else callable(self.settings.grid)
        kinds = any(found.layered for found in self.methods), any(found.staged for found in self.methods)
        asked = getattr(target, "__code__", type(target)) if self._chooses else None  # named layers are what they are
        return call.signature, call.which, self.layers, grid, kinds, asked

    def _fold(self, run: Session, plan: Plan, label: CallLabel, kept: Tensor, call: Inputs) -> Fold:
        """How the tensors of a call lie over the input: as the caller says, or worked out once."""
        given = self.settings.grid
        if callable(given):
            return given
        shape = tuple(kept.shape)
        if given is None and shape[0] == call.batch and shape[2:] == (1,) * len(call.space):
            warn(f"{label} has a single place, so that its map is the same everywhere: choose an earlier layer.")
            return Grid(shape[2:]).fold
        if label not in plan.grids:
            found = grids.readings(shape, call.space, call.batch, grid=given)
            looks = given is None or any(one.others for one in found)  # a forward shows which tokens are no places
            seen = {one.label: one for one in self._seen(run, plan)} if looks else {}
            if label in seen and (len(found) != 1 or len(shape) == 3):
                found = list(seen[label].readings)
            plan.grids[label] = _only(found, label, shape, call)
            if given is None and label in seen:
                self._prove(run, plan, replace(seen[label], readings=(plan.grids[label],)))
        return plan.grids[label].fold

    def _seen(self, run: Session, plan: Plan) -> list[Seen]:
        """What one forward shows of all layers, looked at once for a plan."""
        if not plan.seen:
            with run.aside():
                plan.seen.extend(look(run, None if callable(self.settings.grid) else self.settings.grid))
        return plan.seen

    def _prove(self, run: Session, plan: Plan, call: Seen) -> None:
        """Note where the grid of a call that the caller named lies; warn if it has no places."""
        verdict = self._verdicts(run, [call], plan.seen)[call.label]
        if isinstance(verdict, NoPlaces):
            plan.nowhere[call.label] = told = (
                f"the map of {call.label} does not say where: {verdict.reason}. Choose an earlier layer, or pass grid= "
                "if you know how it lies over the input."
            )
            warn(told)
            return
        if verdict.own:
            plan.own.append(call.label)
        if not verdict.placement.is_upright:
            plan.placements[call.label] = verdict.placement


def _others(best: Seen, candidates: Sequence[Seen], seen: Sequence[Seen]) -> list[Seen]:
    """What may hold what passes beside the best call: its layer's other calls, other candidates, and early calls.

    A layer that sees a quarter of the image at a time, and the first of several towers, end early in the forward.
    """
    same = [call for call in seen if call.label[:2] == best.label[:2] and call.grid is not None]
    early = [call for call in reversed(seen) if call.handed and call.grid is not None and call not in candidates]
    return [*same, *candidates, *(call for call in early if call not in same)]


def _said_beside(share: float) -> str:
    return f"; {share:.0%} of what the image says to the score passes beside it" if share > _LITTLE else ""


def _plan(
    looked_at: Sequence[Seen],
    chosen: Sequence[Seen],
    stages: Sequence[Seen],
    reason: str,
    verdicts: Mapping[CallLabel, Proof | NoPlaces],
    *,
    added: bool = False,
) -> Plan:
    rows = {
        call.label: laid_out(call, verdict)
        for call in looked_at
        if isinstance(verdict := verdicts[call.label], Proof) and call.grid is not None
    }
    every = {label: lies for found in rows.values() for label, lies in found.items()}
    return Plan(
        tuple(dict.fromkeys(call.label.name for call in looked_at)),
        tuple(label for call in chosen for label in rows[call.label]),
        tuple(label for call in stages for label in rows[call.label]),
        reason,
        {label: grid for label, (grid, _) in every.items()},
        {_whole(label, grid): place for label, (grid, place) in every.items() if not place.is_upright},
        own=[call.label for call in looked_at if getattr(verdicts[call.label], "own", False)],
        added=added,
    )


def _whole(label: CallLabel, grid: Grid) -> CallLabel:
    """What a map goes by: frames of one image are one map."""
    if grid.rows is None or grid.rows.frame is None:
        return label
    return label.call if grid.rows.count > 1 else label._replace(number=None)


def _reached(
    forward: Forward, known: Mapping[CallLabel, Grid], *, needed: bool
) -> dict[CallLabel, Bool[Tensor, "B T"]]:
    """For each call, image and target, whether the score's gradient is not zero at the call's places.

    Where none of them is, and no gradient is `needed`, every call is taken to be. A fold leaves out the tokens beside
    the grid: a class token that is reached has no place.
    """
    activations = {label: kept for label, kept in forward.activations.items() if label in known}
    nowhere = dict.fromkeys(known, torch.full_like(forward.columns, not needed, dtype=torch.bool))
    if not forward.columns.requires_grad:
        return nowhere
    slopes = list(gradients(forward.columns, activations, keep_graph=True))
    found = {
        label: torch.stack([_any(known[label].fold(slope[label]), forward.call.batch) for slope in slopes], 1)
        for label in activations
    }
    return {call: found[call] for call in known} if needed or any(one.any() for one in found.values()) else nowhere


def _any(slope: Tensor, batch: int) -> Bool[Tensor, " B"]:
    """For each image whether it has a gradient; whether any has, for a call with several rows for each."""
    found = slope.flatten(1).any(1)
    return found if len(found) == batch else found.any().expand(batch)


def _only(found: Sequence[Grid], label: CallLabel, shape: tuple[int, ...], call: Inputs) -> Grid:
    """The one grid that a layer's output can have; an error says what was found instead."""
    if len(found) == 1:
        return found[0]
    if found:
        raise choose_layer.several_ways(label, found, shape, call.space)
    raise LayerError(
        f"the output of {label} does not lie over the input.",
        got=f"shape {shape} for {call.batch} inputs of size {call.space}",
        expected="a map or a sequence of tokens with more than one place and the input's aspect ratio",
        do="pass grid=, the size of the grid or a function from this output to (B, C, *grid), or another layer",
    )
