"""The search for learning rates."""
