"""Explain a model with one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from torch import Generator, nn

from seewhy import targets
from seewhy._types import Fold
from seewhy.engine.probe import Precision
from seewhy.evidence import Gradients
from seewhy.explainer._concepts import Discovery
from seewhy.explainer._explainer import Explainer
from seewhy.hooks.select import Layers
from seewhy.methods import default
from seewhy.methods.fuse import Fuse
from seewhy.methods.registry import Attribution, Method
from seewhy.models.loaded import Loaded
from seewhy.results import Concepts, Explanation
from seewhy.results.windowed import Pool
from seewhy.targets.outputs import Output


@overload
def explain(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    *,
    method: str | Method | Attribution = ...,
    **options: Any,
) -> Explanation: ...
@overload
def explain(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    *,
    method: list[str | Method | Attribution] | list[str] | tuple[str | Method | Attribution, ...],
    **options: Any,
) -> dict[str, Explanation]: ...
def explain(
    model: nn.Module | Loaded,
    inputs: Any,
    target: targets.Classes | targets.Target = None,
    *,
    method: str | Method | Attribution | Sequence[str | Method | Attribution] = default.DEFAULT,
    layers: Layers | None = None,
    grid: Fold | tuple[int, ...] | None = None,
    fuse: Fuse | None = None,
    eigen_smooth: bool = False,
    augment_smooth: bool = False,
    generator: Generator | None = None,
    labels: Sequence[str] | None = None,
    output: Output = None,
    batch_size: int = 32,
    precision: Precision = "full",
    gradients: Gradients = "plain",
    progress: bool = False,
    window: Any = None,
    overlap: float | None = None,
    pool: Pool = "mean",
    **options: Any,
) -> Explanation | dict[str, Explanation]:
    """Show why `model` answered as it did on `inputs`.

        explanation = seewhy.explain(model, images)
        explanation.save("why.png")

    Where to look in the model is worked out at the first call, and kept as long as the model.

    Args:
        model: any module, in whatever mode, or what `seewhy.load` returned.
        inputs: a tensor (B, C, *space); a list of images (C, H, W); a tuple of arguments or a dict of keywords; or, for
            a model from `seewhy.load`, a photograph or a list of them (PIL images or file names).
        target: what to explain; see `seewhy.targets`. None is the predicted class of each image.
        method: a name from `seewhy.methods.available()`, or several, which share what they can; or a function
            (model, inputs, target) -> maps (B, *space), such as `seewhy.methods.of_captum` makes. "default" is what is
            best on most models of this kind at a few times the cost of inference; "auto" is the one that measures best
            on this model, at the layers where it does.
        layers: where to look; see `Explainer` for this and all other options.
        grid: how the layers lie over the input.
        fuse: how several layers become one heatmap.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        augment_smooth: the mean over six views of each image.
        generator: random numbers for the methods that draw.
        labels: a name per class.
        output: which part of the model's output counts, where there are several.
        batch_size: how many changed inputs or activations run at once.
        precision: "full" or "bf16".
        gradients: "plain", or "libra" for those that balance a transformer's account.
        progress: whether a bar is shown.
        window: the size of windows that slide over large images; see `Explainer` for it, overlap and pool.
        overlap: of the windows.
        pool: of the windows' scores.
        **options: the method's own, `masks=500` for "rise" say: see `seewhy.methods.get`.

    Returns:
        An explanation; for several methods a dict of them, by name.

    Raises:
        SeewhyError: one of `seewhy.errors`, as for `Explainer`. What the model raises comes through unchanged.
    """
    explainer = Explainer(
        model,
        method,
        layers=layers,
        grid=grid,
        fuse=fuse,
        eigen_smooth=eigen_smooth,
        augment_smooth=augment_smooth,
        generator=generator,
        labels=labels,
        output=output,
        batch_size=batch_size,
        precision=precision,
        gradients=gradients,
        progress=progress,
        window=window,
        overlap=overlap,
        pool=pool,
        **options,
    )
    return explainer.each(inputs, target) if isinstance(method, list | tuple) else explainer(inputs, target)


def concepts(
    model: nn.Module | Loaded,
    inputs: Any,
    count: int = 5,
    *,
    layers: Layers | None = None,
    grid: Fold | tuple[int, ...] | None = None,
    labels: Sequence[str] | None = None,
    method: Discovery = "factorization",
    target: targets.Classes | targets.Target = None,
    **options: Any,
) -> Concepts:
    """Show what `model` sees in `inputs`, in `count` concepts: see `Explainer.concepts`.

    Args:
        model: any module, in whatever mode, or what `seewhy.load` returned.
        inputs: as for `explain`. For "craft", images of one class.
        count: how many concepts.
        layers: the layer to look at; for "craft" several, where each concept of the last one is taken apart at the one
            before. None chooses one.
        grid: how the layer lies over the input, for layouts that are not recognised: see `Explainer`.
        labels: a name per class; None takes the model's own.
        method: "factorization" of what the layer returns for all images together, or "craft", of crops, which tells how
            important each concept is for the target.
        target: for "craft", as for `explain`, one for each image; None is the predicted class.
        **options: of "craft": see `Explainer.concepts`.

    Returns:
        The concepts, in an object that a notebook shows as a picture.

    Raises:
        LayerError: for a layer that does not exist or has no space, and for more than one without "craft".
        MethodError: for another method, and a target or options without "craft".
        InputError: for "craft", if there are fewer crops or channels than concepts, or an option is out of range.
        TargetError: for "craft", if the target does not fit the output, and for several of an image.
    """
    explainer = Explainer(model, layers=layers, grid=grid, labels=labels)
    return explainer.concepts(inputs, count, method=method, target=target, **options)
