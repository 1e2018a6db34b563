"""What methods need, handed over as values by name: from one forward, and from asking again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise, repeat
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy import targets
from seewhy._types import Ask
from seewhy.engine.probe import Probe
from seewhy.engine.replay import Memory
from seewhy.engine.tape import along, gradients, guided
from seewhy.evidence import classifier
from seewhy.evidence.tokens import Tokens, paths
from seewhy.inputs.call import Inputs

Fold = Callable[[Tensor], Tensor]
Values = dict[str, Any]
# (samples, deviation of the noise) -> for each noisy run, for each target, the gradients (B, C, *grid) by layer
Noisy = Callable[[int, float], list[list[dict[str, Tensor]]]]
# for each target, the gradients at each layer's attention of the score of that layer's tokens
ByLayer = Callable[[], list[list[Tensor]]]

_BACKWARD = {"gradients", "curvatures", "input_gradients", "bias_gradients", "places"}


@dataclass(frozen=True)
class Forward:
    """One forward, recorded and scored; everything but `call` is still in the graph.

    memories: what a replay of a layer's call needs. image: the leaf that went in, where it was recorded from there.
    biased: outputs of layers with the bias in them. tokens: the attention over the image's tokens.
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
    tokens: Tokens | None = None

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
        if "places" in needs and self.tokens is not None:
            if "attention_gradients" in needs:
                leaves |= {f"attention {number}": call.probabilities for number, call in enumerate(self.tokens.calls)}
            leaves |= {f"attended by {call.rows}": call.output for call in self.tokens.calls}  # the last of each
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
        return classifier.classifier_weights(self.classifiers, label, activations, selectors)


def evidence(
    forward: Forward,
    needs: Set[str],
    folds: Mapping[str, Fold],
    probe: Probe,
    noisy: Noisy,
    by_layer: ByLayer,
    *,
    keep_graph: bool,
) -> Iterator[tuple[Values, dict[str, Values]]]:
    """For each target what `needs` names: what is the same for every layer, and what is a layer's, by its label.

    folds: what takes a layer's tensors to (B, C, *grid). Whatever has to run the model again does so when a method
    asks for it. `keep_graph` allows for more backward passes through the forward afterwards.
    """
    activations = {label: fold(forward.activations[label].detach()) for label, fold in folds.items()}
    once = cache(noisy)
    layerwise = by_layer() if "layer_attention_gradients" in needs else repeat([])
    slopes: Iterable[dict[str, Tensor]] = repeat({})
    if needs & _BACKWARD:
        keep = keep_graph or bool(needs & {"weights", "guided_gradients"})
        twice = "curvatures" in needs
        slopes = gradients(forward.columns, forward.leaves(needs), keep_graph=keep, differentiable=twice)

    by_token = _by_token(forward.tokens, probe) if "token_scores" in needs and forward.tokens else None

    @cache
    def replays(label: str) -> Callable[[int], Ask]:
        return probe.layer(label, forward.memories[label], forward.activations[label].detach(), folds[label])

    for number, (column, slope, layers) in enumerate(zip(forward.columns.unbind(1), slopes, layerwise, strict=False)):
        shared = _on_the_input(forward, needs, column, slope)
        shared["layer_attention_gradients"] = [at_least_float32(found) for found in layers]
        shared |= {"scores": probe.scores[:, number], "score": probe.inputs(number)}
        if by_token:
            shared |= by_token(number)
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
    if "places" in needs and forward.tokens is not None:
        values |= _attention(forward.tokens, slope)
    return values


def _attention(tokens: Tokens, slope: Mapping[str, Tensor]) -> Values:
    """What methods of attention need, for one target. Read are the rows that the score's gradient reaches."""
    calls, read = tokens.calls, {}
    for call in calls:
        reached = (slope[f"attended by {call.rows}"] != 0).any(-1).any(1).to(torch.float32)
        read[call.rows] = reached / reached.sum(1, keepdim=True).clamp(min=1)
    return {
        "attentions": [at_least_float32(call.probabilities.detach()) for call in calls],
        "attention_logits": [at_least_float32(call.logits.detach()) for call in calls],
        "attention_gradients": [
            at_least_float32(slope[label].detach()) for label in slope if label.startswith("attention ")
        ],
        "readings": [read[call.rows] for call in calls],
        "queries": at_least_float32(calls[-1].queries.detach()),
        "keys": at_least_float32(calls[-1].keys.detach()),
        "values": at_least_float32(calls[-1].values.detach()),
        "attended_gradients": at_least_float32(slope[f"attended by {calls[-1].rows}"].detach()),
        "places": tokens.places,
    }


def _by_token(tokens: Tokens, probe: Probe) -> Callable[[int], Values]:
    """What methods need that read tokens one by one, for the target of each number."""
    walked = paths(probe.model, probe.call, tokens)
    asks = probe.layer(walked.last, walked.memory, walked.returned, at_least_float32)
    inputs, added = (list(map(at_least_float32, found)) for found in (walked.given, walked.added))

    def scores(ask: Ask, path: Float[Tensor, "B tokens C"]) -> Float[Tensor, "B tokens"]:
        """What the head says of each token, given it in place of all."""
        batch, count = path.shape[:2]
        numbers = torch.arange(batch * count, device=path.device)
        alone = path.flatten(0, 1)[:, None]
        return ask(numbers // count, lambda rows: alone[rows].expand(-1, count, -1)).reshape(batch, count)

    return lambda number: {
        "block_inputs": inputs,
        "value_attention": added,
        "token_scores": partial(scores, asks(number)),
    }


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
