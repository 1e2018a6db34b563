"""seewhy shows why a PyTorch vision model answered as it did: which pixels of which input spoke for which output."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy import errors, inspect, integrations, jobs, methods, metrics, models, render, results, samples, targets
    from seewhy.evaluation import check, choose, evaluate
    from seewhy.explainer import Explainer, concepts, explain
    from seewhy.exporting import export
    from seewhy.hooks import capture, clip, edit, mask, noise, replace, scale, zero
    from seewhy.inspect import features, summary
    from seewhy.models import load
    from seewhy.results import Concepts, Explanation
    from seewhy.targets import Box, Category, Contrast, Pixel, Probability, Region, Similarity, Text, Token

__version__ = "0.2.0"

# Public names are imported when they are first used (PEP 562), so that `seewhy --help` does not wait for torch.
_MODULES = frozenset(
    {
        "errors",
        "inspect",
        "integrations",
        "jobs",
        "methods",
        "metrics",
        "models",
        "render",
        "results",
        "samples",
        "targets",
    }
)
_HOMES = {
    **dict.fromkeys(("check", "choose", "evaluate"), "evaluation"),
    **dict.fromkeys(("Explainer", "concepts", "explain"), "explainer"),
    **dict.fromkeys(("export",), "exporting"),
    **dict.fromkeys(("capture", "clip", "edit", "mask", "noise", "replace", "scale", "zero"), "hooks"),
    **dict.fromkeys(("features", "summary"), "inspect"),
    **dict.fromkeys(("load",), "models"),
    **dict.fromkeys(("Concepts", "Explanation"), "results"),
    **dict.fromkeys(
        ("Box", "Category", "Contrast", "Pixel", "Probability", "Region", "Similarity", "Text", "Token"), "targets"
    ),
}

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
    "Token",
    "capture",
    "check",
    "choose",
    "clip",
    "concepts",
    "edit",
    "errors",
    "evaluate",
    "explain",
    "export",
    "features",
    "inspect",
    "integrations",
    "jobs",
    "load",
    "mask",
    "methods",
    "metrics",
    "models",
    "noise",
    "render",
    "replace",
    "results",
    "samples",
    "scale",
    "summary",
    "targets",
    "zero",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"seewhy.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"seewhy.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
