"""The command line."""

from seewhy.apps.cli import dataset
from seewhy.apps.cli.commands import app, main

__all__ = ["app", "dataset", "main"]
