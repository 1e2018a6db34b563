"""How much a map changes when the image changes a little."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seewhy.errors import InputError
from seewhy.metrics._inputs import Explain, Images, at_least_one, drawing, explained, parts

SMALLEST = 1e-6  # a change of the image or output is taken for at least that much


def max_sensitivity(
    explain: Explain,
    images: Images,
    *,
    radius: float = 0.02,
    samples: int = 10,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """The largest change of the map, as a share of its norm, when uniform noise is added to the image.

    Yeh et al. 2019 (arXiv:1901.09392), definition 3.1, by the norm of the map, as captum and quantus divide. Lower is
    better.

    Args:
        explain: (N, C, H, W) -> maps (N, H, W). Row n was made of image n % B: N is B or a multiple of it.
        images: (B, C, H, W) or (B, C, D, H, W), as the model takes them.
        radius: the most that is added to or taken from a value, in units of the images.
        samples: how many noises, the same for all images.
        batch_size: the most rows of a call of `explain`; None for B.
        generator: draws the noise; None draws the same in every call.

    Returns:
        (B,) 0 or more; NaN for a map of zeros, which has no shares.

    Raises:
        InputError: if maps and images differ in size, or a map is not finite.
    """
    return _changes(explain, images, radius, samples, batch_size, generator).amax(0)


def average_sensitivity(
    explain: Explain,
    images: Images,
    *,
    radius: float = 0.02,
    samples: int = 10,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """The mean change of the map, as a share of its norm, when uniform noise is added to the image.

    Bhatt et al. 2020 (arXiv:2005.00631), definition 2. Lower is better. Arguments, result and errors as those of
    `max_sensitivity`.
    """
    return _changes(explain, images, radius, samples, batch_size, generator).mean(0)


def relative_input_stability(
    explain: Explain,
    images: Images,
    *,
    outputs: Callable[[Tensor], Tensor] | None = None,
    radius: float = 0.02,
    samples: int = 10,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """The largest relative change of the map by the relative change of the image, for uniform noise.

    Agarwal et al. 2022 (arXiv:2203.06877), equation 2, with Euclidean norms of the relative changes. Values of 0 in the
    map or the image have no relative change and are left out. Lower is better.

    Args:
        explain: as that of `max_sensitivity`.
        images: as that of `max_sensitivity`.
        radius: as that of `max_sensitivity`.
        samples: as that of `max_sensitivity`.
        batch_size: as that of `max_sensitivity`.
        generator: as that of `max_sensitivity`.
        outputs: (N, C, H, W) -> (N, classes), the model; noise that changes the class is not counted. None counts all.

    Returns:
        (B,) 0 or more; NaN for a map of zeros, and if all noises change the class.

    Raises:
        InputError: as `max_sensitivity`.
    """

    def apart(changed: Tensor, _: Tensor) -> Tensor:
        return _relative(images, changed)

    return _stability(explain, images, outputs, apart, radius, samples, batch_size, generator)


def relative_output_stability(
    explain: Explain,
    images: Images,
    outputs: Callable[[Tensor], Tensor],
    *,
    radius: float = 0.02,
    samples: int = 10,
    batch_size: int | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, " B"]:
    """The largest relative change of the map by the change of the model's output, for uniform noise.

    Agarwal et al. 2022 (arXiv:2203.06877), equation 5, with Euclidean norms. Values of 0 in the map have no relative
    change and are left out. Lower is better.

    Args:
        explain: as that of `max_sensitivity`.
        images: as that of `max_sensitivity`.
        radius: as that of `max_sensitivity`.
        samples: as that of `max_sensitivity`.
        batch_size: as that of `max_sensitivity`.
        generator: as that of `max_sensitivity`.
        outputs: (N, C, H, W) -> (N, classes), the model's logits; noise that changes the class is not counted.

    Returns:
        (B,) 0 or more; NaN for a map of zeros, and if all noises change the class.

    Raises:
        InputError: as `max_sensitivity`.
    """

    def apart(_: Tensor, moved: Tensor) -> Tensor:
        distance: Tensor = moved.norm(dim=2)
        return distance

    return _stability(explain, images, outputs, apart, radius, samples, batch_size, generator)


def _noise(images: Images, radius: float, generator: Generator) -> Callable[[Tensor], Tensor]:
    """A function of numbers (k,): the images with that many noises, each the same for all images."""
    if radius <= 0:
        raise InputError("the noise has no radius.", got=radius, expected="more than 0, in units of the images")

    def noisy(numbers: Tensor) -> Tensor:
        draws = [torch.rand(images.shape[1:], generator=generator, device=generator.device) for _ in numbers]
        return images + (radius * (2 * torch.stack(draws) - 1)).to(images)[:, None]

    return noisy


def _changes(
    explain: Explain,
    images: Images,
    radius: float,
    samples: int,
    batch_size: int | None,
    generator: Generator | None,
) -> Float[Tensor, "samples B"]:
    at_least_one(samples=samples)
    noisy = _noise(images, radius, drawing(generator))
    maps = explained(explain, images[None])
    changes = [_norm(explained(explain, noisy(numbers)) - maps) for numbers in parts(samples, images, batch_size)]
    return torch.cat(changes) / _norm(maps)


def _stability(
    explain: Explain,
    images: Images,
    outputs: Callable[[Tensor], Tensor] | None,
    apart: Callable[[Tensor, Tensor], Tensor],
    radius: float,
    samples: int,
    batch_size: int | None,
    generator: Generator | None,
) -> Float[Tensor, " B"]:
    """The largest relative change of the maps by `apart` (changed images, change of the outputs) -> (k, B)."""
    at_least_one(samples=samples)
    noisy = _noise(images, radius, drawing(generator))
    maps = explained(explain, images[None])[0]
    plain = images.new_zeros(len(images), 1) if outputs is None else _outputs(outputs, images[None])[0]
    found = []
    for numbers in parts(samples, images, batch_size):
        changed = noisy(numbers)
        after = plain if outputs is None else _outputs(outputs, changed)
        ratio = _relative(maps, explained(explain, changed)) / apart(changed, after - plain).clamp(min=SMALLEST)
        found.append(ratio.masked_fill(after.argmax(-1) != plain.argmax(-1), -torch.inf))
    largest = torch.cat(found).amax(0)
    return largest.masked_fill((largest == -torch.inf) | (maps == 0).flatten(1).all(1), torch.nan)


def _outputs(outputs: Callable[[Tensor], Tensor], changed: Float[Tensor, "k B C *space"]) -> Tensor:
    rows = changed.flatten(0, 1)
    with torch.no_grad():
        values = outputs(rows)
    if not isinstance(values, Tensor) or values.ndim != 2 or len(values) != len(rows):
        raise InputError(
            "`outputs` did not return a row of numbers for each image.",
            got=tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__,
            expected=f"({len(rows)}, classes)",
        )
    return values.to(changed.device).reshape(*changed.shape[:2], -1)


def _relative(before: Float[Tensor, "B *shape"], after: Float[Tensor, "k B *shape"]) -> Float[Tensor, "k B"]:
    """The norm of the changes, each by what was there; nothing where nothing was."""
    return _norm(torch.where(before != 0, (after - before) / before, 0))


def _norm(values: Float[Tensor, "k B *shape"]) -> Float[Tensor, "k B"]:
    norms: Tensor = values.flatten(2).norm(dim=2)
    return norms
