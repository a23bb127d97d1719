"""Turns to token ids with an exact mask: layout -> segments -> tokens -> length."""
