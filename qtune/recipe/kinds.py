"""Kinds of data files, told by their names, and the keys of a source that each of them reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtune.recipe.paths import is_local, is_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.inputs import SourceSection

HUB = "hub data set"
KINDS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
OF_IMAGES = "images"
"""The kind of a folder whose folders hold images, one of each label."""
_BINARY = ("parquet", "arrow")
_TABLES = ("csv", "tsv", "txt")
_LISTS = (*_TABLES, "json", "jsonl")
_WITH_SPLITS = (HUB, "json")
_ADVICE = {
    "write its table as csv": (".xlsx", ".xls", ".ods", ".numbers"),
    "unpack it": (".zip", ".7z", ".rar", ".tar", ".tgz"),
    "unpack it, or pack it with gzip": (".zst", ".bz2", ".xz", ".lz4"),
    "write its rows as jsonl": (".xml", ".html", ".yaml", ".yml", ".md", ".db", ".sqlite", ".avro"),
    "write its text as txt": (".pdf", ".doc", ".docx", ".epub", ".odt"),
    "pickles can run code and are not read; write its rows as jsonl": (".pkl", ".pickle", ".pt"),
}


def kind_of(path: str | Path) -> str | None:
    """The kind of a data file by its name; text kinds may end in .gz too."""
    name = Path(str(path).lower()).name
    kind = KINDS.get(Path(name.removesuffix(".gz")).suffix)
    return None if name.endswith(".gz") and kind in _BINARY else kind


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in IMAGES


def advice(path: Path) -> str:
    """What to do with a file of a kind that is not read."""
    suffix = path.suffix.lower()
    known = f"known: {', '.join(KINDS)}, text kinds also as .gz"
    return next((text for text, suffixes in _ADVICE.items() if suffix in suffixes), known)


def named_kind(source: SourceSection) -> str | None:
    """The kind of a source as far as its path tells; None for what only the disk can tell."""
    kind = kind_of(source.path)
    return kind if kind or is_local(source.path) or is_pattern(source.path) else HUB


def idle_keys(source: SourceSection, kind: str | None) -> Iterator[tuple[str, str]]:
    """Keys of a source that its kind never reads, each with the reason; None is an unknown kind."""
    if kind != HUB:
        yield from ((key, "a local path has none") for key in ("config", "revision"))
    if kind is None:
        return
    if kind not in _TABLES:
        yield "delimiter", "only csv, tsv and txt have it"
    if kind not in _LISTS:
        yield "column_names", f"only {', '.join(_LISTS)} have it"
    if kind not in _WITH_SPLITS and source.split.partition("[")[0] != "train":
        what = "a folder of images" if kind == OF_IMAGES else f"a {kind} file"
        yield "split", f"{what} has no splits; train[:10%] takes a part of it"
