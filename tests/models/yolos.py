"""ultralytics' models of random weights, small, whose boxes are many and sure enough to be listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

SIDE = 96  # of what they see, in pixels
FAMILIES = ("yolov8", "yolo11", "yolo12", "yolo26")


def picture(size: tuple[int, int] = (192, 160)) -> Image.Image:
    """Random colours, twelve pixels wide; its sides are scaled alike by the letterbox."""
    width, height = size
    levels = np.random.default_rng(0).random((height // 12, width // 12, 3)) * 255
    return Image.fromarray(levels.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def detector(family: str, task: str, folder: Path) -> Any:
    """The object that predicts, half as wide as the smallest of its family if it can be.

    Args:
        family: one of `FAMILIES`.
        task: "", "-seg", "-pose", "-obb" or "-cls".
        folder: where its YAML file may lie.
    """
    import ultralytics
    from ultralytics.nn.tasks import yaml_model_load

    config = yaml_model_load(f"{family}n{task}.yaml")
    depth, width, most = config["scales"]["n"]
    if family != "yolo12":  # its attention takes no fewer channels
        width /= 2
    config |= {"scales": {"n": [depth, width, most]}, "nc": 1 if task == "-pose" else 4}
    file = folder / f"{family}n{task}.yaml"
    file.write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    model = ultralytics.YOLO(file)
    model.overrides["imgsz"] = SIDE
    for module in model.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    if task != "-cls":
        _draw(model.model.model[-1])
    return model


@torch.no_grad()
def _draw(head: Any) -> None:
    """Draw a head's weights anew: scores around 0.25, boxes some three strides wide, masks and angles of any kind."""
    for kind in ("", "one2one_"):
        for classes in getattr(head, f"{kind}cv3", None) or ():
            nn.init.normal_(classes[-1].weight, std=3)
            nn.init.normal_(classes[-1].bias, -1.5, 0.5)
        for sides in getattr(head, f"{kind}cv2", None) or ():
            sides[-1].weight.mul_(0.1)
            bins = torch.arange(head.reg_max, dtype=torch.float32)
            sides[-1].bias.copy_((-4 * (bins - 1.5).abs()).repeat(4) if head.reg_max > 1 else torch.full((4,), 1.5))
        for more in getattr(head, f"{kind}cv4", None) or ():
            if isinstance(more[-1], nn.Conv2d):
                nn.init.normal_(more[-1].weight, std=0.5)
                nn.init.normal_(more[-1].bias, std=0.5)
