"""What a lower room offers as a method and an upper room does: the one exception to the direction of imports.

`Explainer(model, "auto")` measures before it explains, and `Explanation.check()` explains again. Both are done in
`seewhy.evaluation`, which stands above them, and is looked up by name when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"choose": "seewhy.evaluation", "check": "seewhy.evaluation"}


def late(name: str) -> Any:
    """The function of this name."""
    return getattr(import_module(_HOMES[name]), name)
