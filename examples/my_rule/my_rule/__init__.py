"""Members for tprnn: each is a class that this module has a name for."""

from my_rule.manhattan import Manhattan

__all__ = ["Manhattan"]
