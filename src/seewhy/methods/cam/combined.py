"""Methods made of other methods: what is explained, or where, is changed; how it is computed is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

from seewhy import targets
from seewhy.methods.registry import Method, add, get

_FINER = (
    "grad-cam 1.5.7 with one class to compare with: heatmaps the same to 1e-4. With more, grad-cam and the authors' "
    "code weight the classes by their probabilities, and the paper takes their mean, as here."
)
_REFINE = (
    "grad-cam 1.5.7 at the same layers: heatmaps the same to 1e-4. Maps are enlarged, then scaled; the other way "
    "around they differ by 5e-7 on a resnet18 of random weights at 96 x 96. There the five resolutions from the first "
    "convolution on correlate 0.94 with layer1 to layer4 alone."
)
_D_RISE = "The paper's similarity in float64, by hand and query by query: the same to 1e-5; the map as that of rise."


def finer(base: str | Method, *, count: int = 3, strength: float = 1.0) -> Method:
    """Any method, of the class against the `count` most like it in the image: "finer_" and the method's name.

    The score explained is y_c - strength * mean of theirs (Finer-CAM, Zhang et al. 2025, arXiv:2501.11309). grad-cam
    and the authors' code weight the classes by their probabilities; with one class there is no difference.

    Args:
        base: the name of a method, or a method.
        count: how many classes to compare with.
        strength: how much their scores count.

    Returns:
        The method.

    Raises:
        MethodError: if there is no method `base`.
    """
    found, ask = get(base), _asking(count, strength)
    return replace(found, name=f"finer_{found.name}", source="arXiv:2501.11309", ask=ask, checked=_FINER)


@cache
def _asking(count: int, strength: float) -> Callable[[targets.Target, Any], targets.Target]:
    """The same function for the same options: methods that ask alike share a backward pass."""
    return partial(targets.finer, count=count, strength=strength)


def refine(base: str | Method) -> Method:
    """Any method of layers, at every resolution, fused by the product: "refine_" and the method's name.

    Each layer's map is scaled to [0, 1] first (RefineCAM, Domeniconi et al. 2026, arXiv:2605.14641). Sharp for networks
    of a few classes. At chance on the boxes of a detector, whose levels are no stages of one map, and little better on
    photographs: positive gradients do not tell a thousand classes apart.

    Args:
        base: the name of a method, or a method.

    Returns:
        The method.

    Raises:
        MethodError: if there is no method `base`.
    """
    found = get(base)
    return replace(
        found, name=f"refine_{found.name}", source="arXiv:2605.14641", staged=True, fuse="product", checked=_REFINE
    )


def _d_rise() -> Method:
    """RISE with the masks of the paper, of how surely each detection is found again; see `targets.redetected`."""
    rise = get("rise", masks=5000, cells=16)
    return replace(rise, name="d_rise", source="arXiv:2006.03204", ask=targets.redetected, checked=_D_RISE)


add(_d_rise())
add(replace(finer("grad_cam"), name="finer_cam"))
add(replace(refine("grad_cam_plus_plus"), name="refine_cam"))
