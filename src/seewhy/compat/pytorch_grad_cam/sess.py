"""SESS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam._scores import ImageTarget, PerImage, per_image, predicted
from seewhy.compat.pytorch_grad_cam._wrapping import Wrapping
from seewhy.compat.pytorch_grad_cam.base_cam import Array, BaseCAM
from seewhy.compat.pytorch_grad_cam.grad_cam import GradCAM
from seewhy.compat.pytorch_grad_cam.utils.image import scale_cam_image
from seewhy.engine.session import plain_session
from seewhy.errors import InputError
from seewhy.images import arrays


class SESS(Wrapping):
    """Any class on windows of the image at several scales, fused (Tursun et al. 2022, arXiv:2207.01769).

    base_method: the class, which gets `options`. scales: lengths of the image's shorter side; unless given `num_scales`
    of them from the window's up, in steps of `scale_step_ratio` of it. window_size, step_size: in pixels; the image's
    shorter side and the window's unless given. pre_filter_ratio: the share of windows, of the lowest scores, that is
    left out. theta: what of a window's map is not above it takes no part in the mean. pool: "mean" or "max".
    smooth: blur the result. use_softmax_scores: whether targets weigh windows by the softmax of the outputs.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        base_method: Callable[..., BaseCAM] = GradCAM,
        scales: Sequence[int] | None = None,
        num_scales: int = 12,
        scale_step_ratio: float = 2 / 7,
        window_size: int | None = None,
        step_size: int | None = None,
        pre_filter_ratio: float = 0.0,
        theta: float = 0.0,
        pool: Literal["mean", "max"] = "mean",
        smooth: bool = True,
        use_softmax_scores: bool = True,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        if pool not in ("mean", "max"):
            raise InputError("unknown way to fuse windows.", got=repr(pool), expected='"mean" or "max"')
        if not 0 <= pre_filter_ratio < 1:
            raise InputError("pre_filter_ratio is out of range.", got=pre_filter_ratio, expected="a number in [0, 1)")
        if num_scales < 1:
            raise InputError("there are no scales.", got=f"num_scales={num_scales}")
        self.base_cam = base_method(model, target_layers, reshape_transform, **options)
        self.scales, self.num_scales, self.scale_step_ratio = scales, num_scales, scale_step_ratio
        self.window_size, self.step_size = window_size, step_size
        self.pre_filter_ratio, self.theta = pre_filter_ratio, theta
        self.pool, self.smooth, self.use_softmax_scores = pool, smooth, use_softmax_scores
        self.batch_size = batch_size

    def forward(
        self, input_tensor: Tensor, targets: Sequence[ImageTarget] | None = None, eigen_smooth: bool = False
    ) -> Array:
        """Maps (B, H, W) in [0, 1]."""
        images = input_tensor.detach().to(self.base_cam.device)
        asked = predicted(self._outputs(images)) if targets is None else per_image(targets, len(images))
        cams = [
            self._enhanced(image[None], target, eigen_smooth)
            for image, target in zip(images, asked.targets, strict=True)
        ]
        return scale_cam_image(np.stack(cams))

    def _enhanced(self, image: Float[Tensor, "1 C H W"], target: ImageTarget, eigen_smooth: bool) -> Array:
        """The fused map (H, W) of one image."""
        size = image.shape[-2:]
        window = self.window_size or min(size)
        windows = list(self._windows(image, window))
        scores = torch.cat([self._scores([patch for patch, *_ in part], target) for part in self._parts(windows)])
        kept = scores.argsort(stable=True)[int(len(scores) * self.pre_filter_ratio) :]
        highest = scores.max()
        weights = scores / highest if highest > 0 else torch.ones_like(scores)
        total, count = torch.zeros(size), torch.zeros(size)
        for part in self._parts(kept.tolist()):
            batch = torch.cat([windows[number][0] for number in part])
            cams = torch.from_numpy(self.base_cam(batch, [target] * len(part), eigen_smooth=eigen_smooth))
            for number, cam in zip(part, cams, strict=True):
                _, (top, left), whole = windows[number]
                pasted = torch.zeros(whole)
                pasted[top : top + window, left : left + window] = cam * weights[number]
                cam = arrays.resize(pasted, tuple(size))
                if self.pool == "max":
                    total = total.maximum(cam)
                else:
                    total, count = total + torch.where(cam > self.theta, cam, 0), count + (cam > self.theta)
        fused = total if self.pool == "max" else total / count.clamp(min=1)
        return (_blurred(fused) if self.smooth else fused).numpy()

    def _windows(
        self, image: Float[Tensor, "1 C H W"], window: int
    ) -> Iterator[tuple[Tensor, tuple[int, int], tuple[int, int]]]:
        """(the window, its top left corner, the scaled image's size) at every scale."""
        step = round(window * self.scale_step_ratio)
        for scale in self.scales or [window + step * number for number in range(self.num_scales)]:
            if scale < window:
                raise InputError("a scale is smaller than the window.", got=scale, expected=f"{window} or more")
            short = min(image.shape[-2:])
            whole = (scale * image.shape[-2] // short, scale * image.shape[-1] // short)
            scaled = F.interpolate(image, whole, mode="bilinear", antialias=True)
            for left, top in sliding_window(*whole, self.step_size or window, window):
                yield scaled[..., top : top + window, left : left + window], (top, left), whole

    def _outputs(self, images: Tensor) -> Any:
        with plain_session(self.base_cam.model, images) as run:
            return run.run()

    def _scores(self, windows: Sequence[Tensor], target: ImageTarget) -> Float[Tensor, " N"]:
        """The target's score of each window, not below zero: they are to be weights."""
        outputs = self._outputs(torch.cat(list(windows)))
        outputs = outputs.softmax(-1) if self.use_softmax_scores else outputs
        return PerImage(lambda _: target, torch.zeros(len(windows), dtype=torch.long))(outputs).cpu().clamp(min=0)

    def _parts(self, entries: Sequence[Any]) -> Iterator[Sequence[Any]]:
        return (entries[start : start + self.batch_size] for start in range(0, len(entries), self.batch_size))


def sliding_window(height: int, width: int, step_size: int, window_size: int) -> list[tuple[int, int]]:
    """The windows' upper left corners (x, y), row by row."""
    return [
        (x, y)
        for y in window_starts(height, step_size, window_size)
        for x in window_starts(width, step_size, window_size)
    ]


def window_starts(length: int, step_size: int, window_size: int) -> list[int]:
    """Where windows begin on a side of `length`; one that would stand out over its end is moved back."""
    last = max(length - window_size, 0)
    return list(dict.fromkeys(min(start, last) for start in range(0, length, step_size)))


def _blurred(cam: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Blurred by a Gaussian of 5 pixels, cut at 5 of them."""
    lobe = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 5.0**2))
    lobe = lobe / lobe.sum()
    padded = F.pad(cam[None, None], (5, 5, 5, 5), mode="reflect")
    return F.conv2d(F.conv2d(padded, lobe.reshape(1, 1, -1, 1)), lobe.reshape(1, 1, 1, -1))[0, 0]
