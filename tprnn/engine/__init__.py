"""The only training loop. It knows contracts: no rule, task or network by name, no file but through the store."""
