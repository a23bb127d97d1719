"""Answers with a verdict."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.data.row import Turn
from tests.data.formats.reading import only, refuse, settled

ASKED = {"role": "user", "content": "2+2?"}
RIGHT = {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(("label", "part"), [(True, "desirable"), (False, "undesirable"), (1, "d")])
def test_the_label_is_the_part(label: Any, part: str) -> None:
    row = {"prompt": "2+2=", "completion": "4", "label": label}
    example = only("unpaired", row)
    assert example.part.startswith(part)
    assert example.turns == (Turn("prompt", "2+2="), Turn("completion", "4", train=True))
    assert settled("unpaired", row).layout == "completion"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, RIGHT]},
        {"prompt": [ASKED], "completion": [RIGHT]},
        {"prompt": "2+2?", "completion": RIGHT},
        {"prompt": [ASKED], "completion": "4"},
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
    ],
)
def test_conversations(row: dict[str, Any]) -> None:
    example = only("unpaired", {**row, "label": False})
    assert example.turns == (Turn("user", "2+2?"), Turn("assistant", "4", train=True))
    assert settled("unpaired", row).layout == "chat"


def test_only_the_last_answer_of_a_conversation_is_judged() -> None:
    row = {"messages": [ASKED, RIGHT, ASKED, RIGHT], "label": True}
    assert [turn.train for turn in only("unpaired", row).turns] == [False, False, False, True]


def test_an_instruction() -> None:
    row = {"instruction": "a", "input": "", "completion": "b", "label": True}
    assert only("unpaired", row).turns == (Turn("instruction", "a"), Turn("assistant", "b", True))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b"}, "label: missing"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "label: is text, true (wanted) or"),
        ({"prompt": "a", "completion": "b", "label": None}, "label: is null, true (wanted)"),
        ({"prompt": "a", "completion": "b", "label": 2}, "label: is a number, true (wanted)"),
        ({"prompt": "a", "completion": "", "label": True}, "completion: is empty"),
        ({"prompt": "a", "label": True}, "completion: missing"),
        ({"completion": "a", "label": True}, "prompt: missing"),
        ({"messages": [ASKED], "label": True}, "messages: has no assistant turn"),
        ({"messages": [RIGHT, ASKED], "label": True}, "messages: ends on a turn that is not"),
        ({"messages": [], "label": True}, "messages: is empty"),
    ],
)
def test_faulty_rows(row: dict[str, Any], message: str) -> None:
    refuse("unpaired", row, message)
