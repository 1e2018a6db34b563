"""What methods need, handed over as values by name: from one forward, and from asking again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise, repeat
from typing import Any

import torch
from torch import Tensor, nn

from seewhy import layers as choosing
from seewhy import targets
from seewhy.capture.replay import Memory
from seewhy.capture.tape import along, gradients, guided
from seewhy.errors import MethodError
from seewhy.inputs import Inputs
from seewhy.methods.registry import Ask
from seewhy.probe import Probe

Fold = Callable[[Tensor], Tensor]
Values = dict[str, Any]
# (samples, deviation of the noise) -> for each noisy run, for each target, the gradients (B, C, *grid) by layer
Noisy = Callable[[int, float], list[list[dict[str, Tensor]]]]

_BACKWARD = {"gradients", "curvatures", "input_gradients", "bias_gradients"}


@dataclass(frozen=True)
class Forward:
    """One forward, recorded and scored; everything but `call` is still in the graph.

    memories: what a replay of a layer's call needs. image: the leaf that went in, where it was recorded from there.
    biased: outputs of layers with the bias in them.
    """

    call: Inputs
    outputs: Any
    activations: dict[str, Tensor]
    target: targets.Target
    scores: Tensor
    probabilities: Tensor | None
    classifiers: Sequence[tuple[nn.Module, Tensor]]
    memories: Mapping[str, Memory]
    image: Tensor | None = None
    biased: Sequence[tuple[Tensor, Tensor]] = field(default=())

    @property
    def columns(self) -> Tensor:
        """Scores (B, T), T = 1 for (B,)."""
        return self.scores if self.scores.ndim == 2 else self.scores[:, None]

    def scored(self, target: targets.Target) -> Forward:
        """The same forward with another target."""
        return replace(self, target=target, scores=targets.checked(target(self.outputs), self.call.batch))

    def asked(self, ask: Callable[[targets.Target, Any], targets.Target] | None) -> Forward:
        """The same forward with the target that `ask` makes of this one."""
        return self if ask is None else self.scored(ask(self.target, self.outputs))

    def leaves(self, needs: Set[str]) -> dict[str, Tensor]:
        """What the scores' gradient is wanted at. No layer has a space in its name."""
        leaves = dict(self.activations) if needs & {"gradients", "curvatures"} else {}
        if "input_gradients" in needs and self.image is not None:
            leaves["the input"] = self.image
        if "bias_gradients" in needs:
            leaves |= {f"bias {number}": output for number, (output, _) in enumerate(self.biased)}
        return leaves

    def reached(self, folds: Mapping[str, Callable[[Tensor], Tensor]]) -> set[str]:
        """The labels of the activations at whose places the first target's gradient is not zero.

        A fold leaves out the tokens beside the grid: a class token that is reached has no place.
        """
        if not self.columns.requires_grad:
            return set()
        slopes = next(gradients(self.columns[:, :1], self.activations, keep_graph=True))
        return {label for label, slope in slopes.items() if label in folds and bool(folds[label](slope).any())}

    def parallel(self, labels: Sequence[str]) -> bool:
        """Whether none of the activations of these labels, in the order they ran, is made of the one before it."""
        kept = [self.activations[label] for label in labels]
        return not any(
            torch.autograd.grad(after.sum(), before, retain_graph=True, allow_unused=True)[0] is not None
            for before, after in pairwise(kept)
        )

    def weights(self, label: str, activations: Tensor, column: Tensor) -> Tensor:
        """The classifier's weights (B, C) on the layer's channels for one target's scores (B,)."""
        logits = targets.scores_tensor(self.outputs)
        selectors = torch.autograd.grad(column.sum(), logits, retain_graph=True)[0].flatten(1)
        return choosing.classifier_weights(self.classifiers, label, activations, selectors)


def evidence(
    forward: Forward, needs: Set[str], folds: Mapping[str, Fold], probe: Probe, noisy: Noisy, *, keep_graph: bool
) -> Iterator[tuple[Values, dict[str, Values]]]:
    """For each target what `needs` names: what is the same for every layer, and what is a layer's, by its label.

    folds: what takes a layer's tensors to (B, C, *grid). Whatever has to run the model again does so when a method
    asks for it. `keep_graph` allows for more backward passes through the forward afterwards.
    """
    activations = {label: fold(forward.activations[label].detach()) for label, fold in folds.items()}
    once = cache(noisy)
    slopes: Iterable[dict[str, Tensor]] = repeat({})
    if needs & _BACKWARD:
        keep = keep_graph or bool(needs & {"weights", "guided_gradients"})
        twice = "curvatures" in needs
        slopes = gradients(forward.columns, forward.leaves(needs), keep_graph=keep, differentiable=twice)

    @cache
    def replays(label: str) -> Callable[[int], Ask]:
        activation = forward.activations[label].detach()
        if activation.shape[0] != forward.call.batch:
            raise MethodError(
                f"{label} cannot be replayed: the images are not its output's first dimension.",
                got=f"shape {tuple(activation.shape)} for {forward.call.batch} image(s)",
                do="choose a method that changes the input, such as score_cam, or one of gradients",
            )
        return probe.layer(forward.memories[label], activation, folds[label])

    for number, (column, slope) in enumerate(zip(forward.columns.unbind(1), slopes, strict=False)):
        shared = _on_the_input(forward, needs, column, slope)
        shared |= {"scores": probe.scores[:, number], "score": probe.inputs(number)}
        seen: dict[str, Values] = {}
        for label, fold in folds.items():
            seen[label] = {"activations": activations[label]}
            if "gradients" in needs:
                seen[label]["gradients"] = fold(slope[label].detach())
            if "curvatures" in needs:
                seen[label]["curvatures"] = fold(along(slope[label], forward.activations[label]))
            if "weights" in needs:
                seen[label]["weights"] = forward.weights(label, activations[label], column)
            if "noisy_gradients" in needs:
                seen[label]["noisy_gradients"] = partial(_stacked, once, number, label)
            if "replay" in needs:
                seen[label]["replay"] = partial(_replayed, replays, number, label)
        yield shared, seen


def _on_the_input(forward: Forward, needs: Set[str], column: Tensor, slope: Mapping[str, Tensor]) -> Values:
    """What methods need that is no layer's, for one target's scores (B,), in float32 at least."""
    values: Values = {}
    if "inputs" in needs:
        values["inputs"] = at_least_float32(forward.call.image)
    if "input_gradients" in needs:
        values["input_gradients"] = at_least_float32(slope["the input"].detach())
    if "bias_gradients" in needs:
        values["bias_gradients"] = [
            at_least_float32(slope[f"bias {number}"].detach())
            * at_least_float32(bias).reshape(-1, *[1] * (output.ndim - 2))
            for number, (output, bias) in enumerate(forward.biased)
        ]
    if "guided_gradients" in needs and forward.image is not None:
        with guided(column):
            (found,) = torch.autograd.grad(column.sum(), forward.image, retain_graph=True)
        values["guided_gradients"] = at_least_float32(found)
    return values


def _stacked(noisy: Noisy, number: int, label: str, samples: int, noise: float) -> Tensor:
    """The gradients (N, B, C, *grid) of the target `number` at one layer, of all noisy runs."""
    return torch.stack([run[number][label] for run in noisy(samples, noise)])


def _replayed(
    replays: Callable[[str], Callable[[int], Ask]],
    number: int,
    label: str,
    images: Tensor,
    make: Callable[[Tensor], Tensor],
) -> Tensor:
    """The scores (N,) of the target `number` for changed activations of one layer."""
    return replays(label)(number)(images, make)


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
