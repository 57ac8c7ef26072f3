"""Hydra plugins of tprnn. (No `hydra_plugins/__init__.py`: that namespace is shared with other plugins.)"""
