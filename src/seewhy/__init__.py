"""seewhy shows why a PyTorch vision model answered as it did: which pixels of which input spoke for which output."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy import errors, methods, render, targets
    from seewhy.capture import capture, clip, edit, mask, noise, replace, scale, zero
    from seewhy.explain import Explainer, concepts, explain
    from seewhy.explanation import Concepts, Explanation
    from seewhy.features import features
    from seewhy.models import load
    from seewhy.summary import summary
    from seewhy.targets import Box, Category, Contrast, Pixel, Probability, Region, Similarity, Text

__version__ = "0.1.0"

# Public names are imported when first used, so that `seewhy --help` does not wait for torch.
_HOMES = {
    "Box": "targets",
    "Category": "targets",
    "Concepts": "explanation",
    "Contrast": "targets",
    "Explainer": "explain",
    "Explanation": "explanation",
    "Pixel": "targets",
    "Probability": "targets",
    "Region": "targets",
    "Similarity": "targets",
    "Text": "targets",
    "capture": "capture",
    "clip": "capture",
    "concepts": "explain",
    "edit": "capture",
    "explain": "explain",
    "features": "features",
    "load": "models",
    "mask": "capture",
    "noise": "capture",
    "replace": "capture",
    "scale": "capture",
    "summary": "summary",
    "zero": "capture",
}
_MODULES = ("errors", "methods", "render", "targets")

__all__ = [
    "Box",
    "Category",
    "Concepts",
    "Contrast",
    "Explainer",
    "Explanation",
    "Pixel",
    "Probability",
    "Region",
    "Similarity",
    "Text",
    "capture",
    "clip",
    "concepts",
    "edit",
    "errors",
    "explain",
    "features",
    "load",
    "mask",
    "methods",
    "noise",
    "render",
    "replace",
    "scale",
    "summary",
    "targets",
    "zero",
]


class _Package(ModuleType):
    """The package as a module whose public functions are not hidden by the submodules of the same name."""

    def __getattr__(self, name: str) -> Any:
        if name in _MODULES:
            return import_module(f"seewhy.{name}")
        if name in _HOMES:
            value = getattr(import_module(f"seewhy.{_HOMES[name]}"), name)
            setattr(self, name, value)
            return value
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        # importing seewhy.explain, the module, sets the attribute to the module; the name means the function
        if isinstance(value, ModuleType) and name in _HOMES:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
