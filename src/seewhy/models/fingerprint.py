"""A digest of a model's weights: the same for the same network wherever it is loaded."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over all parameters and buffers: names, types, shapes and bits, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):  # modules may keep other things beside
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            found.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return found.hexdigest()
