"""The rows of a script: which load_dataset call is learnt, and which is measured."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtune.recipe.importing.python_values import is_none, plain
from qtune.recipe.importing.rows import is_test
from qtune.recipe.node import Node

if TYPE_CHECKING:
    from qtune.recipe.importing.python_values import Constants
    from qtune.recipe.importing.rows import Table
    from qtune.recipe.node import Source

_READERS = ("json", "csv", "parquet", "text")  # of load_dataset: they read data_files


@dataclass(frozen=True)
class _Rows:
    """The rows of a load_dataset call, or a piece of them; `parted` by train_test_split."""

    call: ast.Call
    piece: str = ""
    parted: bool = False


def data_of(tree: ast.Module, known: Constants, source: Source) -> dict[str, Node]:
    """Tables of sources as `load_dataset` and `eval_dataset`, and `remarks` on what is not there.

    Names are followed from a load_dataset call to the trainer's train_dataset and eval_dataset.
    """
    named = _named(tree)
    train, held = (_of_trainer(tree, key, named) for key in ("train_dataset", "eval_dataset"))
    loads = [each for each in _by_line(tree) if isinstance(each, ast.Call) and _loads(each)]
    if train is None and loads:
        train = _Rows(next((each for each in loads if not held or each is not held.call), loads[0]))
    learnt = _sources(train, known) if train else []
    measured = [table for name, table in learnt if is_test(name)]
    if held and train and (held.call is not train.call or (held.piece and not held.parted)):
        measured = [table for _, table in _sources(held, known)]
    remarks = [*_untaken(loads, train, held), *_unfollowed(tree, named, bool(measured))]
    remarks += [text for rows in (train, held) if rows for text in _of_hub(rows, known)]
    found: dict[str, tuple[_Rows | None, list[Any]]] = {
        "load_dataset": (train, [table for name, table in learnt if not is_test(name)]),
        "eval_dataset": (held or train, measured),
        "remarks": (train, remarks),
    }
    return {
        key: Node(None, source, rows.call.lineno if rows else 1).like(values)
        for key, (rows, values) in found.items()
        if values
    }


def _by_line(tree: ast.Module) -> list[Any]:
    found = [node for node in ast.walk(tree) if hasattr(node, "lineno")]
    return sorted(found, key=lambda node: node.lineno)


def _loads(call: ast.Call) -> bool:
    return ast.unparse(call.func).rpartition(".")[2] == "load_dataset"


def _named(tree: ast.Module) -> dict[str, _Rows]:
    """Names that hold rows, as their last assignment says."""
    named: dict[str, _Rows] = {}
    for node in _by_line(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            rows = _followed(node.value, named)
            if rows is not None:
                named[node.targets[0].id] = rows
    return named


def _followed(node: ast.expr, named: dict[str, _Rows]) -> _Rows | None:
    """Rows behind methods and pieces: of `data["test"].map(...)` those of `data`."""
    piece, parted = "", False
    while not (isinstance(node, ast.Call) and _loads(node)):
        if isinstance(node, ast.Name):
            rows = named.get(node.id)
            parted = parted or (rows is not None and rows.parted)
            return rows and replace(rows, piece=piece or rows.piece, parted=parted)
        if isinstance(node, ast.Subscript):
            piece = str(plain(node.slice, {}) or "")
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parted = parted or node.func.attr == "train_test_split"
            node = node.func.value
        else:
            return None
    return _Rows(node, piece, parted)


def _of_trainer(tree: ast.Module, key: str, named: dict[str, _Rows]) -> _Rows | None:
    value = _argument(tree, key)
    return None if value is None else _followed(value, named)


def _argument(tree: ast.Module, key: str) -> ast.expr | None:
    keywords = [each for each in ast.walk(tree) if isinstance(each, ast.keyword)]
    return next((each.value for each in keywords if each.arg == key), None)


def _given(call: ast.Call, known: Constants) -> dict[str, Any]:
    positions = dict(zip(("path", "name"), call.args, strict=False))
    given = positions | {each.arg: each.value for each in call.keywords if each.arg}
    return {key: plain(value, known) for key, value in given.items()}


def _sources(rows: _Rows, known: Constants) -> list[tuple[str, Table]]:
    """Tables of qtune's sources; of a table of data_files taken whole, each with its name there."""
    given = _given(rows.call, known)
    split = given.get("split") if isinstance(given.get("split"), str) else None
    path, files = given.get("path"), given.get("data_files")
    piece = "" if rows.parted else rows.piece
    if path not in _READERS or not files:
        own = {"path": path, "config": given.get("name"), "split": split or piece}
        own["split"] = None if own["split"] == "train" else own["split"] or None
        return [("", own)] if isinstance(path, str) else []
    table = files if isinstance(files, dict) else {"train": files}
    wanted = split.partition("[")[0] if split else piece
    wanted = wanted if wanted in table else ""
    share = (split or "").removeprefix(wanted) if wanted else ""
    found: list[tuple[str, Table]] = []
    for name, each in table.items():
        for file in each if isinstance(each, list) else [each]:
            if wanted in (name, "") and isinstance(file, str):
                own = {"path": file, "split": f"train{share}" if share else None}
                found.append(("" if wanted else name, own))
    return found


def _of_hub(rows: _Rows, known: Constants) -> list[str]:
    """What to say of a data set of which only some files were read."""
    given = _given(rows.call, known)
    path, files = given.get("path"), given.get("data_files")
    if not files or path in _READERS:
        return []
    return [f"load_dataset: of {path} only {files} was read: download it, and write its path"]


def _untaken(loads: list[ast.Call], *taken: _Rows | None) -> list[str]:
    used = [rows.call for rows in taken if rows]
    return [
        f"{ast.unparse(call)[:60]} (line {call.lineno}) is not taken over: if its rows are used, "
        "add them to data.train or data.eval"
        for call in loads
        if call not in used
    ]


def _unfollowed(tree: ast.Module, named: dict[str, _Rows], measured: bool) -> list[str]:
    """What to say of rows of the trainer that no load_dataset call was found for."""
    remarks = []
    for key, advice in (
        ("train_dataset", "see that data.train is all of it"),
        ("eval_dataset", "write data.val_size or data.eval"),
    ):
        value = _argument(tree, key)
        if value is None or is_none(value, {}) or (measured and key == "eval_dataset"):
            continue
        rows = _followed(value, named)
        if rows is None or (rows.parted and key == "eval_dataset"):
            told = "is held out of the rows" if rows else "comes from code"
            remarks.append(f"{key} (line {value.lineno}) {told}: {advice}")
    return remarks
