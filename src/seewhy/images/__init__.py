"""Photographs, arrays and files: what pictures are before and after a model."""
