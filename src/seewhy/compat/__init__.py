"""Other libraries' interfaces on this engine."""
