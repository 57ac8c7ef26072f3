"""One file per network: parameters, recurrence, read-out."""
