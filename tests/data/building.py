"""Small files, recipes and looks at encoded rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from qtune.data import EncodedRow, Prepared, prepare
from qtune.data.faults import Faults
from qtune.data.row import Row
from qtune.data.source import read
from qtune.errors import QtuneError
from qtune.recipe.inputs import DataSection, LossSection, ModelSection, SourceSection
from qtune.recipe.sections import Recipe
from tests.tiny import tiny_tokenizer

TRAIN_ON = {"completion": LossSection(), "all": LossSection(train_on="all")}


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """One JSON value a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(*paths: Path, train_on: str = "completion", source: Any = None, **data: Any) -> Recipe:
    """A recipe over some files; `source` holds keys of every source, `data` of the section."""
    sources = tuple(SourceSection(path=str(path), **(source or {})) for path in paths)
    return Recipe(
        model=ModelSection(name_or_path="tiny"),
        data=DataSection(train=sources, **data),
        loss=TRAIN_ON[train_on],
    )


def encoded(
    folder: Path, rows: list[Any], *, tokenizer: PreTrainedTokenizerFast | None = None, **keys: Any
) -> Prepared:
    """Rows of a jsonl file, prepared with the tiny tokenizer."""
    path = write_jsonl(folder / "train.jsonl", rows)
    return prepare(recipe(path, **keys), tokenizer or tiny_tokenizer())


def read_rows(path: Path, **keys: Any) -> tuple[list[Row], Faults]:
    """All rows of a file and the faults found on the way."""
    faults = Faults()
    return list(read(SourceSection(path=str(path), **keys), faults)), faults


def messages_of(error: QtuneError) -> list[str]:
    """The lines a person sees."""
    return [str(fault) for fault in error.faults]


def spans(row: EncodedRow, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The learnt stretches of a row, decoded one by one."""
    found: list[list[int]] = []
    before = False
    for token, label in zip(row.input_ids, row.labels, strict=True):
        if label != -100:
            assert label == token
            if not before:
                found.append([])
            found[-1].append(token)
        before = label != -100
    return [tokenizer.decode(ids, skip_special_tokens=False) for ids in found]


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    """A row of messages."""
    return {"messages": [{"role": role, "content": content} for role, content in turns]}
