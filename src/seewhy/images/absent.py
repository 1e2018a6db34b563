"""Images that show nothing of what counts, and the regions that an image is taken apart into."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images import arrays

Images: TypeAlias = Float[Tensor, "B C *space"]
Absent: TypeAlias = Literal["blur", "mean", "zero"] | Tensor

BLURRED = 20  # the deviation of the blur is the image's side divided by it: 11 pixels of 224


def absent(images: Images, baseline: Absent) -> Images:
    """Images that show nothing of what counts.

    Args:
        images: (B, C, *space).
        baseline: "blur", Gaussian, of a deviation of 1/20 of each side; "mean", each channel's over the image; "zero";
            or images of the same shape.

    Raises:
        InputError: for another word, or images of another shape.
    """
    if isinstance(baseline, Tensor):
        if baseline.shape != images.shape:
            raise InputError(
                "the baseline is of another shape than the images.",
                got=tuple(baseline.shape),
                expected=tuple(images.shape),
                do="baseline.expand_as(images)",
            )
        return baseline.to(images)
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "mean":
        return images.mean(tuple(range(2, images.ndim)), keepdim=True).expand_as(images)
    if baseline == "blur":
        for dim in range(2, images.ndim):
            images = arrays.blur(images, images.shape[dim] / BLURRED, (dim,))
        return images
    raise InputError("there is no such baseline.", got=baseline, expected='"blur", "mean", "zero", or images')


def several(images: Images, baseline: Absent | Sequence[Absent]) -> Float[Tensor, "K B C *space"]:
    """The same for each of several baselines, or for the only one.

    Raises:
        InputError: for an empty sequence, and as `absent`.
    """
    asked = [baseline] if isinstance(baseline, str | Tensor) else list(baseline)
    if not asked:
        raise InputError("no baseline was given.", got="an empty sequence", do='baseline="zero"')
    return torch.stack([absent(images, one) for one in asked])


def superpixels(images: Images, *, count: int = 100) -> Int[Tensor, "B *space"]:
    """About `count` regions of each image: SLIC superpixels of pictures and volumes, the cells of a grid elsewhere.

    Achanta et al. 2012 (doi:10.1109/TPAMI.2012.120). Signals and machines without scikit-image have cells, as
    `grid_cells` gives them.

    Args:
        images: (B, C, *space).
        count: how many regions there should be.

    Returns:
        (B, *space), the number of the region that each pixel belongs to.

    Raises:
        InputError: if `count` is below 1.
    """
    if find_spec("skimage") is None or images.ndim == 3:
        return grid_cells(images, count=count)
    from skimage.segmentation import slic

    _positive(count)
    pictures = images.detach().movedim(1, -1).double().cpu().numpy()
    labels = [torch.as_tensor(slic(picture, n_segments=count, start_label=0, channel_axis=-1)) for picture in pictures]
    return torch.stack(labels).long().to(images.device)


def grid_cells(images: Images, *, count: int = 100) -> Int[Tensor, "B *space"]:
    """The cells of a grid with about `count` of them, as many along each side.

    Args:
        images: (B, C, *space).
        count: how many cells there should be.

    Returns:
        (B, *space), the number of the cell that each pixel belongs to, the same for every image.

    Raises:
        InputError: if `count` is below 1.
    """
    _positive(count)
    space = images.shape[2:]
    along = max(1, round(count ** (1 / len(space))))
    labels = torch.zeros(space, dtype=torch.long, device=images.device)
    for dim, length in enumerate(space):
        cells = min(along, length)
        numbers = torch.arange(length, device=images.device) * cells // length
        labels = labels * cells + numbers.reshape([length if d == dim else 1 for d in range(len(space))])
    return labels.expand(len(images), *space)


def _positive(count: int) -> None:
    if count < 1:
        raise InputError("`count` is too small.", got=count, expected="at least 1")
