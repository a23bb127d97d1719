"""One short text that tells one base checkpoint from another."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

from qtune.artefacts import read_object
from qtune.models.files import shard_index
from qtune.models.shards import tensor_table
from qtune.plan import read_config

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

SAMPLES = 8
SAMPLE_BYTES = 256
# Rewritten by every save, without a change of the model.
VOLATILE = ("transformers_version", "_name_or_path")
NOTE = "qtune_copy.json"  # in a quantised copy: what it was made of


def fingerprint(folder: Path) -> str:
    """What tells a base from another: that of its files, or, for a quantised copy that is as qtune
    wrote it, that of its source: an adapter of one is an adapter of the other."""
    own = of_files(folder)
    if not (folder / NOTE).is_file():
        return own
    note = read_object(folder / NOTE)
    return str(note["source"]) if note.get("content") == own and "source" in note else own


def of_files(folder: Path) -> str:
    """sha256 of config.json, every tensor's name, dtype and shape, and 8 samples of its bytes.

    It does not depend on how the tensors are spread over files. 256 bytes at 8 even places are
    read of each tensor: seconds for the largest model, but a flipped bit elsewhere goes unseen.
    """
    config = {key: value for key, value in read_config(folder).items() if key not in VOLATILE}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    tables = {file: tensor_table(file) for file in set(shard_index(folder).values())}
    places = {name: file for file, table in tables.items() for name in table}
    with ExitStack() as stack:
        files = {file: stack.enter_context(file.open("rb", buffering=0)) for file in tables}
        for name in sorted(places):
            entry = tables[places[name]][name]
            digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
            digest.update(_sample(files[places[name]], entry["data_start"], entry["data_offsets"]))
    return digest.hexdigest()


def _sample(file: FileIO, start: int, offsets: list[int]) -> bytes:
    """Evenly spaced pieces of one tensor's bytes, the first and the last included."""
    size = offsets[1] - offsets[0]
    last = max(0, size - SAMPLE_BYTES)
    pieces = []
    for position in sorted({last * index // (SAMPLES - 1) for index in range(SAMPLES)}):
        file.seek(start + position)
        pieces.append(file.read(min(SAMPLE_BYTES, size - position)))
    return b"".join(pieces)
