"""No reader holds a whole file: a few rows cost a few bytes, a whole pass little memory."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from qtune.data.faults import Faults
from qtune.data.source import read
from qtune.recipe.inputs import SourceSection

ROWS = 28_000
TEXT = "word " * 50
VALUES = [{"n": n, "text": f"{n:06d} {TEXT}"} for n in range(ROWS)]
PIECES = 2_300_000  # two of the pieces that text is read in


class Counted(io.FileIO):
    """A file that knows how much of all files was read."""

    read_bytes = 0

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        Counted.read_bytes += count or 0
        return count

    def readall(self) -> bytes:
        raise AssertionError("a file is read whole")


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: Path, mode: str = "r", **_: Any) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(Counted(path))

    monkeypatch.setattr(Counted, "read_bytes", 0)
    monkeypatch.setattr(Path, "open", opened)


def write(path: Path) -> int:
    """A file of all rows; returns its size."""
    lines = [json.dumps(row) for row in VALUES]
    table = pyarrow.Table.from_pylist(VALUES)
    kind = path.name.partition(".")[2]
    with io.FileIO(path, "wb") as file:
        if kind == "parquet":
            pyarrow.parquet.write_table(table, file, row_group_size=2000, compression="none")
        elif kind == "arrow":
            with pyarrow.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=1000)
        elif kind == "json":
            file.write(f"[{', '.join(lines)}]".encode())
        elif kind == "csv":
            file.write("".join(["n,text\n", *(f"{r['n']},{r['text']}\n" for r in VALUES)]).encode())
        elif kind == "txt":
            file.write("".join(f"{r['n']} || {r['text']}\n" for r in VALUES).encode())
        else:
            text = "\n".join(lines).encode()
            file.write(text if kind == "jsonl" else gzip.compress(text, 0))
    return path.stat().st_size


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("f.jsonl", 50_000),
        ("f.jsonl.gz", 200_000),
        ("f.csv", 50_000),
        ("f.txt", 100_000),
        ("f.json", PIECES),
        ("f.parquet", PIECES),
        ("f.arrow", PIECES),
    ],
)
def test_a_few_rows_cost_a_few_bytes(tmp_path: Path, name: str, most: int) -> None:
    size = write(tmp_path / name)
    assert size > 3 * PIECES
    source = SourceSection(path=str(tmp_path / name))
    few = list(islice(read(source, Faults()), 5))
    assert [str(row.values.get("n", row.number - 1)) for row in few] == list("01234")
    assert 0 < Counted.read_bytes < most


@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.csv", "f.parquet", "f.arrow"])
def test_a_whole_pass_holds_a_part_of_the_file(tmp_path: Path, name: str) -> None:
    size = write(tmp_path / name)
    source = SourceSection(path=str(tmp_path / name))
    list(islice(read(source, Faults()), 5))  # what is imported on the way
    tracemalloc.start()
    count = sum(1 for _ in read(source, Faults()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == ROWS
    assert peak < size / 2
