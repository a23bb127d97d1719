"""A recipe with a tiny tokenizer and no weights at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.building import write_jsonl
from tests.tiny import tiny_llama, tiny_tokenizer

COFFEE = "noël ☕ 咖啡\n\ttwo"


def make_recipe(
    folder: Path, rows: list[Any], *, source: Any = None, more: str = "", **data: Any
) -> Path:
    """recipe.yaml, rows.jsonl and a model folder without weights; `data` are keys of the section,
    `more` other sections."""
    model = folder / "model"
    tiny_llama().config.save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    write_jsonl(folder / "rows.jsonl", rows)
    section = {"train": [{"path": "rows.jsonl", **(source or {})}], "max_length": 200, **data}
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"model: {{name_or_path: ./model}}\ndata: {json.dumps(section)}\n{more}")
    return recipe


def exchange(number: int, answer: str = COFFEE) -> dict[str, Any]:
    """A chat of one question and one answer."""
    turns = [("user", f"number {number} é"), ("assistant", f"{answer} {number}")]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}
