"""Run a model and leave it as it was found: guard, tape, replay, attention in the open."""
