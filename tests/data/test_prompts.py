"""A typed prompt is encoded as the prompts of the rows that were learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qtune.data import prepare, prompter
from tests.data.building import recipe, write_jsonl
from tests.tiny import tiny_tokenizer


@pytest.mark.parametrize(
    ("row", "keys", "typed"),
    [
        ({"text": "Good!", "label": "yes"}, {}, "Good!"),
        ({"text": "Good!", "label": "yes"}, {"prompt_template": "{text}: "}, "Good!"),
        ({"sentence": "Good!", "label": 1}, {"labels": ("no", "yes")}, "Good!"),
        ({"prompt": "1+1=", "completion": "2"}, {}, "1+1="),
        ({"n": 1, "completion": "2"}, {"prompt_template": "{n}+1="}, "1"),
        ({"instruction": "Add.", "output": "2"}, {}, "Add."),
        ({"instruction": "Add.", "instances": [{"input": "", "output": "2"}]}, {}, "Add."),
        ({"messages": [{"role": r, "content": r} for r in ("user", "assistant")]}, {}, "user"),
        ({"prompt": {"role": "prompter", "text": "a", "replies": []}}, {}, "a"),
    ],
)
def test_what_is_typed_is_what_was_learnt(
    tmp_path: Path, row: dict[str, Any], keys: dict[str, Any], typed: str
) -> None:
    if isinstance(row.get("prompt"), dict):
        row["prompt"]["replies"] = [{"role": "assistant", "text": "b"}]
    tokenizer = tiny_tokenizer()
    asked = recipe(write_jsonl(tmp_path / "train.jsonl", [row]), source=keys)
    (learnt,) = prepare(asked, tokenizer).train
    assert prompter(tokenizer, asked).ids(typed) == learnt.prompt_ids
