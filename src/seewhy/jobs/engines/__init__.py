"""Engines: where the one function that explains a batch runs."""
