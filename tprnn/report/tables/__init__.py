"""Rows as tables of text."""
