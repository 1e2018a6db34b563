"""The best of many candidates from few measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Trial = tuple[int, float]  # an image, and a share of its pixels
Measure = Callable[[Sequence[int], Sequence[Trial]], Float[Tensor, "candidates trials"]]

_KEEP = 3  # one candidate in this many goes on to the next round


def halved(
    count: int, floor: int, measure: Measure, trials: Sequence[Trial], budget: int
) -> tuple[list[int], list[Float[Tensor, " trials"]]]:
    """Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): all in few trials, the best in more.

    All that are left meet the same trials. Where candidates cannot be told apart, the first is the best: a candidate
    is better only if it is so by more than a standard error (Breiman et al. 1984, the rule of one standard error). So
    the first of all is never dropped.

    Args:
        count: of candidates, by number; those that are expected to be better come first.
        floor: how many more, numbered after them, are measured in every trial and never win.
        measure: the candidates of these numbers in these trials, higher is better.
        trials: in the order in which they are met.
        budget: how many measurements may be made. There is one trial for all, at least.

    Returns:
        The finalists, the best first, and what was measured of each number.
    """
    chance = list(range(count, count + floor))
    alive = list(range(count))
    measured = [torch.zeros(0) for _ in range(count + floor)]
    rounds = max(1, math.ceil(math.log(max(count, 2), _KEEP)) - 1)
    for number in range(rounds):
        affordable = max(1, budget // ((rounds - number) * (len(alive) + floor)))
        now, trials = trials[:affordable], trials[affordable:]
        if not now or (number and budget < len(alive) + floor):
            break
        entries = [*alive, *chance]
        budget -= len(entries) * len(now)
        for entry, values in zip(entries, measure(entries, now), strict=True):
            measured[entry] = torch.cat([measured[entry], values.cpu()])
        alive.sort(key=lambda entry: -float(measured[entry].mean()))
        if number < rounds - 1:
            kept = alive[: max(3, math.ceil(len(alive) / _KEEP))]
            alive = kept if 0 in kept else [*kept, 0]
    best = next(entry for entry in sorted(alive) if not better(measured[alive[0]], measured[entry]))
    return [best, *(entry for entry in alive if entry != best)], measured


def better(one: Float[Tensor, " trials"], other: Float[Tensor, " trials"], errors: float = 1.0) -> bool:
    """Whether the mean of the differences is above 0 by more than so many of its standard errors."""
    differences = one - other
    if len(differences) < 2:
        return bool((differences > 0).all())
    return bool(differences.mean() > errors * differences.std() / len(differences) ** 0.5)
