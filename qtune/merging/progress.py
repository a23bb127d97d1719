"""What of a merge is on the disk already: its finished files, each with its hash and account.

The list is written anew, whole, after each file; a merge that was killed goes on behind them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qtune.artefacts import read_object
from qtune.durable import sha256_of, sweep, write_json
from qtune.errors import QtuneError
from qtune.merging.account import Account

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NAME = "qtune_merge.json"
FORMAT = 1


def key_of(identity: Mapping[str, Any]) -> str:
    """A merge's name among others, of all that decides the bytes of its result."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def made_of(folder: Path) -> dict[str, str]:
    """The digests of the "base" and the "adapter" that a folder was merged of, as far as it says
    so: one of another tool says nothing."""
    return dict(read_object(folder / NAME).get("made_of", {})) if (folder / NAME).is_file() else {}


class Progress:
    """The finished files of a staging folder."""

    def __init__(self, folder: Path, key: str, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        self._key = key
        digests = {name: identity[name] for name in ("base", "adapter") if name in identity}
        self._head = {"format": FORMAT, "made_of": digests}
        self._files: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls, folder: Path, key: str, identity: Mapping[str, Any]) -> Progress:
        """What a former process finished and is still as it wrote it; half files are removed."""
        found = cls(folder, key, identity)
        sweep(folder)
        try:
            noted = read_object(folder / NAME) if (folder / NAME).is_file() else {}
        except QtuneError:  # cut off by a failing disk
            noted = {}
        if noted.get("format") == FORMAT and noted.get("key") == key:
            found._files = {
                name: entry
                for name, entry in noted["files"].items()
                if found._is_whole(name, entry)
            }
        for path in folder.glob("*.safetensors*"):
            if path.name not in found._files:  # damaged, or of a later stage
                path.unlink()
        return found

    def account(self, name: str) -> Account | None:
        """What the edits of a finished file did; None of one that is yet to be written."""
        entry = self._files.get(name)
        return Account(**entry["account"]) if entry else None

    def add(self, name: str, sha256: str, account: Account) -> None:
        """A file is finished and on the disk."""
        self._files[name] = {"sha256": sha256, "account": asdict(account)}
        write_json(self._folder / NAME, {**self._head, "key": self._key, "files": self._files})

    def replace(self, files: Iterable[Path]) -> None:
        """Other files stand in the place of those that were merged; what a kill leaves of them is
        no beginning of a merge."""
        hashes = {path.name: {"sha256": sha256_of(path)} for path in sorted(files)}
        content = {**self._head, "key": f"{self._key}-made-of-it", "files": hashes}
        write_json(self._folder / NAME, content)

    def __len__(self) -> int:
        return len(self._files)

    def _is_whole(self, name: str, entry: Mapping[str, Any]) -> bool:
        path = self._folder / name
        return path.is_file() and sha256_of(path) == entry["sha256"]
