"""What tells whether a result was made with the same weights and libraries."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version

import torch
from PIL import __version__ as pillow
from torch import Tensor, nn

import seewhy


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over all parameters and buffers: names, types, shapes and bits, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):  # modules may keep other things beside
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            found.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return found.hexdigest()


def versions() -> dict[str, str]:
    """The versions of the libraries that a map depends on, of those that are installed."""
    found = {"seewhy": seewhy.__version__, "torch": torch.__version__, "pillow": pillow}
    for library in ("torchvision", "timm", "transformers", "open_clip_torch"):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
