"""One file per read-out: what is made of hidden states, and what it costs to be wrong."""
