"""Slow float64 twins of the fast functions, written from the papers with plain loops."""
