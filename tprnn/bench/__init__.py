"""`make bench`: what an iteration costs, against the floor of its products and activations in the same process."""
