"""What methods need: from one forward, and from asking the model again."""
