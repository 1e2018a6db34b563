"""What the score becomes when something is changed."""
