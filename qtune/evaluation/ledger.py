"""What an evaluation has found so far, so that one that was interrupted goes on from there."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from qtune.durable import append_text, unlink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ENDING = ".partial.jsonl"


class Ledger:
    """Records by model, task and number, a line of JSON each; a torn last line is none.

    The file's name is of what is evaluated and how, so another evaluation never reads it.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        """Without a folder nothing is kept; `settings` is all that the answers depend on."""
        text = json.dumps(settings, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._path = None if folder is None else folder / f"eval-{key}{_ENDING}"
        self._found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        self._torn = False
        if self._path is not None and self._path.is_file():
            self._read(self._path.read_text(encoding="utf-8", errors="replace"))

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def known(self, side: str, task: str) -> dict[int, dict[str, Any]]:
        """The records of one model and task by their numbers."""
        return dict(self._found.get((side, task), {}))

    def add(self, side: str, task: str, records: Mapping[int, dict[str, Any]]) -> None:
        """Keep some more, each of them once."""
        kept = self._found.setdefault((side, task), {})
        fresh = {number: record for number, record in records.items() if number not in kept}
        kept |= fresh
        if self._path is None or not fresh:
            return
        lines = (
            json.dumps({"side": side, "task": task, "number": number, "record": record})
            for number, record in fresh.items()
        )
        start = "\n" if self._torn else ""
        append_text(self._path, start + "".join(f"{line}\n" for line in lines))
        self._torn = False

    def remove(self) -> None:
        """The evaluation is done and written elsewhere."""
        if self._path is not None and self._path.is_file():
            unlink(self._path)

    def _read(self, text: str) -> None:
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                one = json.loads(line)
                place = self._found.setdefault((one["side"], one["task"]), {})
                place[int(one["number"])] = one["record"]
            except (ValueError, KeyError, TypeError):
                continue  # torn when the process ended
