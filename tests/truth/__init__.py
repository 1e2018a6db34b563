"""Scenes whose evidence is known, models trained on them, and what the maps of seewhy are worth there."""
