"""What the attention of a transformer says."""
