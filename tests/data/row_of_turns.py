"""Turns for the tests."""

from __future__ import annotations

from qtune.data.row import Turn


def asked(text: str) -> Turn:
    """A question."""
    return Turn("user", text)


def thought_out(thought: str, text: str) -> Turn:
    """An answer that is learnt, with its reasoning."""
    return Turn("assistant", text, train=True, thinking=thought)
