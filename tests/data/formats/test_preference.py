"""Pairs of answers in every shape they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qtune.data.row import Example, Turn
from tests.data.building import encoded
from tests.data.formats.reading import examples, refuse, settled

ASKED = {"role": "user", "content": "2+2?"}
RIGHT = {"role": "assistant", "content": "4"}
WRONG = {"role": "assistant", "content": "5"}
TURNS = (Turn("user", "2+2?"), Turn("assistant", "4", train=True))
WRONG_TURNS = (Turn("user", "2+2?"), Turn("assistant", "5", train=True))


def pair(values: dict[str, Any], **keys: Any) -> tuple[Example, Example]:
    chosen, rejected = examples("preference", values, **keys)
    assert (chosen.part, rejected.part) == ("chosen", "rejected")
    assert (chosen.place, rejected.place) == ("f.jsonl:7 (chosen)", "f.jsonl:7 (rejected)")
    return chosen, rejected


def test_texts_behind_a_prompt() -> None:
    row = {"prompt": "2+2=", "chosen": "4", "rejected": "5"}
    chosen, rejected = pair(row)
    assert chosen.turns == (Turn("prompt", "2+2="), Turn("completion", "4", train=True))
    assert rejected.turns == (Turn("prompt", "2+2="), Turn("completion", "5", train=True))
    assert settled("preference", row).layout == "completion"


def test_the_prompt_may_be_absent() -> None:
    chosen, _ = pair({"chosen": "a b", "rejected": "a c"})
    assert chosen.turns == (Turn("prompt", ""), Turn("completion", "a b", train=True))


def test_instructions_with_an_input() -> None:
    row = {"instruction": "Add.", "input": "2 2", "output": "x", "chosen": "4", "rejected": "5"}
    chosen, _ = pair(row)
    asked = (Turn("instruction", "Add."), Turn("input", "2 2"))
    assert chosen.turns == (*asked, Turn("assistant", "4", train=True))
    assert settled("preference", row).layout == "instruction"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASKED], "chosen": [RIGHT], "rejected": [WRONG]},
        {"prompt": "2+2?", "chosen": [RIGHT], "rejected": [WRONG]},
        {"prompt": "2+2?", "chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]},
        {"chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]},
        {"messages": [ASKED], "chosen": RIGHT, "rejected": WRONG},
        {"messages": [ASKED], "chosen": "4", "rejected": "5"},
        {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "Human: 2+2?\n\nAssistant: 5"},
        {
            "conversations": [{"from": "human", "value": "2+2?"}],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        },
    ],
    ids=["lists", "text", "repeated", "implicit", "objects", "mixed", "transcript", "sharegpt"],
)
def test_conversations_in_every_shape_are_the_same(row: dict[str, Any]) -> None:
    chosen, rejected = pair(row)
    assert (chosen.turns, rejected.turns) == (TURNS, WRONG_TURNS)
    assert settled("preference", row).layout == "chat"


def test_what_both_answers_share_is_not_learnt() -> None:
    before = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    row = {"chosen": [*before, ASKED, RIGHT], "rejected": [*before, ASKED, WRONG]}
    for example in pair(row):
        assert [turn.train for turn in example.turns] == [False, False, False, True]


def test_tools_of_a_conversation_come_along() -> None:
    row = {"prompt": [ASKED], "chosen": [RIGHT], "rejected": [WRONG], "tools": [{"name": "add"}]}
    assert all(example.tools[0]["function"] == {"name": "add"} for example in pair(row))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            "chosen: is the same as rejected, so the pair prefers nothing (take the row out, or",
        ),
        ({"prompt": [ASKED], "chosen": [RIGHT], "rejected": [RIGHT]}, "chosen: is the same as"),
        ({"prompt": "a", "chosen": "b"}, "rejected: missing"),
        (
            {"chosen": "Human: a\n\nAssistant: ", "rejected": "Human: a\n\nAssistant: b"},
            "chosen: turn 2 is empty",
        ),
        (
            {"chosen": "Human: a\n\nHuman: b", "rejected": "Human: a\n\nAssistant: b"},
            "chosen: ends on a turn of the user, not the assistant's",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected: is null, text is needed"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "chosen: is empty"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "prompt: is a number, text is needed"),
        ({"prompt": [ASKED], "chosen": [], "rejected": [WRONG]}, "chosen: is empty"),
        (
            {"prompt": [ASKED], "chosen": [RIGHT, ASKED], "rejected": [WRONG]},
            "chosen: ends on a turn of the user, not the assistant's",
        ),
        (
            {"chosen": [{"role": "usr", "content": "a"}], "rejected": [WRONG]},
            "chosen: turn 1 has the unknown role 'usr' (did you mean user?)",
        ),
    ],
)
def test_faulty_pairs(row: dict[str, Any], message: str) -> None:
    refuse("preference", row, message)


def test_a_row_of_another_shape_than_the_first_is_a_fault() -> None:
    first = {"prompt": "a", "chosen": "b", "rejected": "c"}
    row = {"prompt": "a", "chosen": [RIGHT], "rejected": [WRONG]}
    refuse("preference", row, "chosen: is a list, text is needed", first=first)


def test_both_answers_are_rows_that_say_which_they_are(tmp_path: Path) -> None:
    prepared = encoded(tmp_path, [{"prompt": "2+2=", "chosen": "4", "rejected": "5"}] * 2)
    assert [(row.place, row.answer) for row in prepared.train] == [
        ("train.jsonl:1 (chosen)", "4"),
        ("train.jsonl:1 (rejected)", "5"),
        ("train.jsonl:2 (chosen)", "4"),
        ("train.jsonl:2 (rejected)", "5"),
    ]
    source = prepared.report.train_sources[0]
    assert (source.read, source.used, source.unit) == (2, 4, "examples")
    assert source.lines()[0] == "train.jsonl: 2 rows read, 4 examples used"
    assert source.to_dict()["purpose"] == "preference"


def test_a_transcript_of_several_turns() -> None:
    said = "\n\nHuman: Hi\n\nAssistant: Hello: you\n\nare?\n\nHuman: Human: x\n\nAssistant: "
    chosen, _ = pair({"chosen": f"{said}yes", "rejected": f"{said}no"})
    assert chosen.turns == (
        Turn("user", "Hi"),
        Turn("assistant", "Hello: you\n\nare?"),
        Turn("user", "Human: x"),
        Turn("assistant", "yes", train=True),
    )
