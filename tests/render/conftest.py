"""Small explanations, made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from jaxtyping import config

if TYPE_CHECKING:
    from seewhy.results.explanation import Explanation


@pytest.fixture
def explanation():
    """A factory: maps (B, [T,] *grid), as an explanation of input of the same size."""
    from seewhy.results.explanation import Explanation  # not before the type checker has hooked into its import

    def make(maps: Any, **changes: Any) -> Explanation:
        maps = torch.as_tensor(maps, dtype=torch.float32)
        several = changes.pop("several", False)
        leading = 2 if several else 1
        fields = {
            "maps": {"layer4.1": maps},
            "scores": torch.arange(float(maps.shape[:leading].numel())).reshape(maps.shape[:leading]) + 0.5,
            "outputs": torch.zeros(len(maps), 3),
            "targets": None,
            "method": "grad_cam",
            "size": tuple(maps.shape[leading:]),
        }
        return Explanation(**{**fields, **changes})

    return make


@pytest.fixture
def unchecked(monkeypatch):
    """Without the type checker of the tests, to see what seewhy itself says about a value of the wrong type."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)
