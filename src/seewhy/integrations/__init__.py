"""How a model's reasons change while it trains: `Monitor` for one's own loop, and a callback for each framework."""

from seewhy.integrations.monitor import Look, Monitor, to_tensorboard

__all__ = ["Look", "Monitor", "to_tensorboard"]
