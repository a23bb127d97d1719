"""samples.jsonl: some held-out answers of each evaluation, to be read before and after."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qtune.durable import append_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME = "samples.jsonl"
KEPT = 8
"""Answers kept of one evaluation."""
LONGEST = 2000
"""Characters kept of a text."""


def keep_samples(folder: Path, step: int, answers: Iterable[dict[str, Any]]) -> None:
    """Append the first answers after `step` optimizer steps, a line each."""
    chosen = [answer for answer, _ in zip(answers, range(KEPT), strict=False)]
    lines = [
        json.dumps({"step": step} | {key: _cut(value) for key, value in answer.items()})
        for answer in chosen
    ]
    if lines:
        append_text(folder / NAME, "\n".join(lines) + "\n")


def read_samples(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """The answers by step; of a step that was measured twice the later ones. Lines that are
    damaged, or cut short by a kill, are left out."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for line in lines:
        try:
            record = json.loads(line)
            found.setdefault(int(record["step"]), {})[str(record["place"])] = record
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return {step: list(answers.values()) for step, answers in found.items()}


def _cut(value: Any) -> Any:
    if not isinstance(value, str) or len(value) <= LONGEST:
        return value
    return value[:LONGEST] + " …"
