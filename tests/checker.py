"""What checks the shapes in signatures while testing: beartype, on the annotations that speak of shapes only.

The others are the type checker's business, and our own messages about wrong values should be reached.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` checked, as jaxtyping hands it over: a stand-in with its signature."""
    hints = function.__annotations__.items()
    function.__annotations__ = {name: hint for name, hint in hints if "jaxtyping." in repr(hint)}
    return beartype(function)
