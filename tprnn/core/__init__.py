"""Pure tensor functions: streams, activations, recurrence products, losses, initialisers. Imports torch alone."""
