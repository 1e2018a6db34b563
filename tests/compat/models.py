"""Small random models for both packages, and their maps side by side."""

from __future__ import annotations

import numpy as np
import pytorch_grad_cam
import timm
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import seewhy.compat.pytorch_grad_cam

UPSTREAM, OURS = pytorch_grad_cam, seewhy.compat.pytorch_grad_cam
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]


def cnn(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Layers "2", "4" and "6" are activations; the head is not linear in them, and no two places weigh the same."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), activation(),
        nn.Conv2d(6, 10, 3, stride=2, padding=1), activation(), nn.Conv2d(10, 8, 3, padding=1), activation(),
        nn.Flatten(), nn.Linear(8 * 64, 16), nn.Tanh(), nn.Linear(16, 5),
    ).eval()  # fmt: skip


def volumes() -> nn.Sequential:
    """Layer "1" is of the input's size: nothing is resized."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 4, 3, stride=2, padding=1), nn.Tanh(),
        nn.Flatten(), nn.Linear(4 * 2 * 3 * 4, 5),
    ).eval()  # fmt: skip


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=5)
    nn.init.normal_(model.head.weight)
    return model.eval()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def cam(package, name, *, build=cnn, layers=("4",), inputs=None, targets=TARGETS, options=None, **call) -> np.ndarray:
    """The maps of `package`'s class `name`; a base_method is one of its own, by name."""
    model, options = build(), dict(options or {})
    if "base_method" in options:
        options["base_method"] = getattr(package, options["base_method"])
    made = getattr(package, name)(model, [model.get_submodule(layer) for layer in layers], **options)
    return made(images() if inputs is None else inputs, targets, **call)


def difference(name, *, exact=False, ours=None, **case) -> float:
    """The largest between the two packages' maps, which are of one kind and not blank."""
    theirs = cam(UPSTREAM, name, **case)
    options = {**(case.pop("options", None) or {}), **({"upstream_exact": True} if exact else {}), **(ours or {})}
    found = cam(OURS, name, options=options, **case)
    assert found.dtype == np.float32
    assert found.shape == theirs.shape
    assert theirs.max() > 0.3
    return float(np.abs(found - theirs).max())
