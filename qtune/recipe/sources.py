"""The local files that a source names: one, those of a folder, or those that a glob matches."""

from __future__ import annotations

import difflib
import glob
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.errors import DataError, first_few
from qtune.recipe import splits
from qtune.recipe.files import exists, expand
from qtune.recipe.kinds import OF_IMAGES, advice, is_image, kind_of
from qtune.recipe.paths import is_pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.splits import Split

# What `datasets` and version control leave beside the data.
_NOTES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source in order, all of one kind, and the rows of them that are meant.

    `root`: the folder or file that the source names. `picked`: whether the folder has splits and
    these files are one of them.
    """

    paths: tuple[Path, ...]
    kind: str
    root: Path
    split: Split
    picked: bool = False

    def labels(self) -> tuple[str, ...]:
        """What messages call each file: its path below the working directory or the root."""
        return tuple(shown(path, self.root) for path in self.paths)


def find(source: SourceSection) -> Found | None:
    """The local files of a source, or None for a hub id; `DataError` when there are none."""
    path = expand(source.path)
    if exists(path):
        found = splits.parse(source.split)
        return _folder(path, found) if path.is_dir() else _file(path, found)
    if is_pattern(source.path):
        return _matches(path, splits.parse(source.split))
    said_local = source.path.startswith(("/", "./", "../", "~"))
    if said_local or kind_of(path) or path.is_absolute():
        raise DataError("no such file or folder", place=source.path, hint=_nearest(path))
    return None


def shown(path: Path, root: Path) -> str:
    """A path as messages name it: below the working directory, else from the root on."""
    absolute, here = path.absolute(), Path.cwd()
    if absolute.is_relative_to(here):
        return str(absolute.relative_to(here))
    above = root.absolute().parent
    return str(absolute.relative_to(above)) if absolute.is_relative_to(above) else path.name


def _file(path: Path, split: Split) -> Found:
    if not path.is_file():
        message = "neither a plain file nor a folder"
        raise DataError(message, place=path.name, hint="write its rows to a file")
    kind = kind_of(path)
    if kind is None:
        what = path.suffix.lower() or path.name
        raise DataError(f"unknown kind of file {what!r}", place=path.name, hint=advice(path))
    return Found((path,), kind, path, split)


def _matches(path: Path, split: Split) -> Found:
    """The data files that a glob matches; its folders are taken as written while they exist."""
    root = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    while len(parts) > 1 and (not is_pattern(parts[0]) or (root / parts[0]).is_dir()):
        root, parts = root / parts[0], parts[1:]
    pattern = str(Path(*parts))
    matched = sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207 - no hidden files
    files = [file for name in matched if (file := root / name).is_file()]
    if not files:
        hint = f"in {root}" if root.is_dir() else f"there is no folder {root}"
        raise DataError("no file matches", place=str(path), hint=hint)
    return Found(tuple(files), _one_kind(files, str(path)), root, split)


def _folder(folder: Path, split: Split) -> Found:
    """The data files of a folder, as `save_to_disk` wrote them or as they lie there."""
    if (folder / "dataset_dict.json").is_file():
        names = _object(folder / "dataset_dict.json").get("splits", [])
        name = splits.chosen(split.name, names, place=str(folder))
        return Found(_saved(folder / Path(name).name), "arrow", folder, split, picked=True)
    if (folder / "state.json").is_file():
        return Found(_saved(folder), "arrow", folder, split)
    inside = _inside(folder)
    files = [path for path in inside if path.is_file() and _is_data(path)]
    if not files and (labels := _labels_in(inside)):
        return _of_images(folder, labels, split)
    if not files:
        names = [f"{path.name}/" if path.is_dir() else path.name for path in inside]
        holds = f"it holds {first_few(names, most=_SHOWN)}" if names else "it is empty"
        raise DataError("a folder without data files", place=str(folder), hint=holds)
    kind = _one_kind(files, str(folder))
    picked = _of_split(files, split, str(folder))
    return Found(tuple(picked or files), kind, folder, split, picked=picked is not None)


def _labels_in(inside: Sequence[Path]) -> list[Path]:
    """The folders among what a folder holds, when there are images in one of them, or in folders
    of theirs."""
    folders = [path for path in inside if path.is_dir()]
    deeper = [path for folder in folders for path in _inside(folder)]
    deepest = (path for folder in deeper if folder.is_dir() for path in _inside(folder))
    return folders if any(map(is_image, (*deeper, *deepest))) else []


def _of_images(folder: Path, labels: Sequence[Path], split: Split) -> Found:
    """The folders of images, one of each label; those of a split where folders are called so."""
    picked = all(splits.word_of(path.name) for path in labels)
    if picked:
        names = {str(splits.word_of(path.name)): path for path in labels}
        asked = splits.word_of(split.name) or split.name
        chosen = names[splits.chosen(asked, sorted(names), place=str(folder))]
        labels = [path for path in _inside(chosen) if path.is_dir()]
    for path in labels:
        if not any(map(is_image, _inside(path))):
            raise DataError("a folder without an image", place=str(path), hint="take it out")
    return Found(tuple(labels), OF_IMAGES, folder, split, picked=picked)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", place=str(folder)) from None


def _is_data(path: Path) -> bool:
    """Whether a file holds rows, and is no note or intermediate result of `datasets`."""
    own = path.name in _NOTES or (path.name.startswith("cache-") and path.suffix == ".arrow")
    return not own and kind_of(path) is not None


def _one_kind(files: Sequence[Path], place: str) -> str:
    """The kind that all files are of; `DataError` lists them when they differ."""
    kinds = {kind_of(path): path for path in reversed(files)}
    if None in kinds:
        path = kinds[None]
        raise DataError(
            f"matches {path.name}, which is no data file", place=place, hint="narrow it"
        )
    if len(kinds) > 1:
        names = first_few([path.name for path in files], most=_SHOWN)
        hint = "name the ones that are meant with a glob such as *.jsonl"
        raise DataError(f"data files of several kinds: {names}", place=place, hint=hint)
    return str(next(iter(kinds)))


def _of_split(files: Sequence[Path], split: Split, place: str) -> list[Path] | None:
    """The files whose names tell the split, in a folder where names tell several.

    A folder with a test file must never be learnt whole unasked.
    """
    told = [(path, splits.word_of(path.name)) for path in files]
    words = sorted({word for _, word in told if word})
    untold = [path.name for path, word in told if word is None]
    if split.name == "train" and (words in ([], ["train"]) or (len(words) == 1 and not untold)):
        return None
    if words and untold:
        message = f"{first_few(untold)} belongs to no split, others to {', '.join(words)}"
        hint = "name the files that are meant with a glob"
        raise DataError(message, place=place, hint=hint)
    name = splits.chosen(splits.word_of(split.name) or split.name, words, place=place)
    return [path for path, word in told if word == name]


def _saved(folder: Path) -> tuple[Path, ...]:
    """The files that `save_to_disk` lists, in its order."""
    state = _object(folder / "state.json")
    names = [str(entry.get("filename")) for entry in state.get("_data_files", [])]
    paths = tuple(folder / name for name in names)
    if state.get("_indices_data_files"):
        message = "saved with an index over its rows, which is not read"
        raise DataError(message, place=str(folder), hint="save flatten_indices() of it")
    for path in paths:
        if path.parent != folder or not path.is_file():
            raise DataError(f"{path.name}, which state.json lists, is missing", place=str(folder))
    return paths


def _object(path: Path) -> dict[str, Any]:
    """A JSON object that `datasets` wrote."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", place=str(path)) from None
    if not isinstance(found, dict):
        raise DataError("not a JSON object", place=str(path))
    return found


def _nearest(path: Path) -> str:
    """What beside a missing file is called something like it."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=2)
    return f"did you mean {' or '.join(close)}?" if close else "paths are relative to the recipe"
