"""What sources say of unknown names and failed downloads."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from seewhy.errors import ModelError


def downloading(name: str, build: Callable[[], Any]) -> nn.Module:
    """What `build` returns.

    Raises:
        ModelError: if a download in it failed.
    """
    try:
        module: nn.Module = build()
        return module
    except OSError as error:  # urllib's and the hub's errors, and a full disk, are all of these
        raise ModelError(
            f"the pretrained weights of {name} could not be downloaded.",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            do="pass weights=None for random ones, or a checkpoint file; on the command line --weights",
        ) from error


def unknown(library: str, name: str, known: Iterable[str]) -> ModelError:
    """The error for a model that `library` does not have, with the names of those `known` that come close."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=4) or known[:3]
    return ModelError(
        f"{library} has no model {name!r}.", expected=", ".join(near) if near else None, do=f"{library}.list_models()"
    )
