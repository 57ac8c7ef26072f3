"""One file per learning rule."""
