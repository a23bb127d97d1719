"""Every faulty field of every format: file:line, field, what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qtune.errors import DataError, ExitCode
from tests.data.building import chat, encoded, messages_of

GOOD = {
    "alpaca": {"instruction": "Add.", "input": "1 2", "output": "3"},
    "prompt-completion": {"prompt": "1 + 2 =", "completion": " 3"},
    "messages": chat(("user", "1 + 2?"), ("assistant", "3")),
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "text": {"text": "Once upon a time."},
}


def turns(*turns: Any) -> dict[str, Any]:
    return {"messages": list(turns)}


def shared(*turns: Any) -> dict[str, Any]:
    return {"conversations": list(turns)}


USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}
FAULTS = [
    ("alpaca", {"instruction": "a", "input": "b"}, "output: missing"),
    ("alpaca", {"instruction": "a", "output": None}, "output: is null, text is needed"),
    ("alpaca", {"instruction": "a", "output": " "}, "output: is empty"),
    ("alpaca", {"instruction": "", "output": "b"}, "instruction: is empty"),
    ("alpaca", {"instruction": "a", "input": 3, "output": "b"}, "input: is a number, text is"),
    ("prompt-completion", {"prompt": "a"}, "completion: missing"),
    ("prompt-completion", {"prompt": "a", "completion": None}, "completion: is null, text"),
    ("prompt-completion", {"prompt": "a", "completion": 7}, "completion: is a number, text"),
    ("prompt-completion", {"prompt": "a", "completion": True}, "completion: is a boolean, text"),
    ("prompt-completion", {"prompt": "a", "completion": ["b"]}, "completion: is a list, text"),
    ("prompt-completion", {"prompt": "a", "completion": ""}, "completion: is empty"),
    ("prompt-completion", {"prompt": {}, "completion": "b"}, "prompt: is an object, text is"),
    ("prompt-completion", {"prompt": "a", "completion": "\ud800"}, "completion: holds half a surr"),
    ("text", {"text": None}, "text: is null, text is needed"),
    ("text", {"text": "\n"}, "text: is empty"),
    ("messages", {}, "messages: missing"),
    ("messages", {"messages": "hi"}, "messages: is text, a list of turns is needed"),
    ("messages", {"messages": None}, "messages: is null, a list of turns is needed"),
    ("messages", turns(), "messages: is empty"),
    ("messages", turns(USER), "messages: has no assistant turn"),
    ("messages", turns(USER, "hi"), "messages: turn 2 is text, an object is needed"),
    ("messages", turns({"content": "x"}, ANSWER), "messages: turn 1 has no 'role'"),
    ("messages", turns(USER, {"role": "assistant"}), "messages: turn 2 has no 'content'"),
    (
        "messages",
        turns(USER, {"role": "assistent", "content": "x"}),
        "messages: turn 2 has the unknown role 'assistent' (did you mean assistant?)",
    ),
    (
        "messages",
        turns({"role": "narrator", "content": "x"}, ANSWER),
        "messages: turn 1 has the unknown role 'narrator' (roles are system, user, assistant and",
    ),
    ("messages", turns({"role": 1, "content": "x"}), "messages: 'role' of turn 1 is a number"),
    (
        "messages",
        turns(USER, {"role": "assistant", "content": None}),
        "messages: 'content' of turn 2 is null, text is needed",
    ),
    (
        "messages",
        turns(USER, {"role": "assistant", "content": ""}),
        "messages: 'content' of turn 2 is empty",
    ),
    (
        "messages",
        turns(USER, {"role": "assistant", "content": None, "tool_calls": [{}]}),
        "messages: turn 2 holds a call without the 'name' of a tool",
    ),
    (
        "messages",
        turns(USER, {**ANSWER, "weight": 0.5}),
        "messages: 'weight' of turn 2 is 0.5, 0 or 1 is needed",
    ),
    ("sharegpt", shared(), "conversations: is empty"),
    ("sharegpt", shared({"from": "human", "value": "x"}), "conversations: has no assistant turn"),
    ("sharegpt", shared({"from": "human"}), "conversations: turn 1 has no 'value'"),
    (
        "sharegpt",
        shared({"from": "function_call", "value": "x"}),
        "conversations: turn 1 is a call, but no JSON (Expecting value)",
    ),
]


@pytest.mark.parametrize(("name", "row", "message"), FAULTS, ids=[f[2][:50] for f in FAULTS])
def test_a_faulty_field_is_named(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        encoded(tmp_path, [GOOD[name], row, GOOD[name]], source={"format": name})
    assert caught.value.code is ExitCode.DATA
    assert len(messages_of(caught.value)) == 1
    assert messages_of(caught.value)[0].startswith(f"train.jsonl:2: {message}")


def test_many_faults_come_together_and_are_counted(tmp_path: Path) -> None:
    rows = [GOOD["prompt-completion"], *[{"prompt": "a", "completion": None}] * 25]
    with pytest.raises(DataError) as caught:
        encoded(tmp_path, rows)
    lines = messages_of(caught.value)
    assert [line.split(" ")[0] for line in lines[:10]] == [
        f"train.jsonl:{n}:" for n in range(2, 12)
    ]
    assert lines[10:] == ["and 15 more faulty rows"]


def test_a_mapped_field_is_named_by_its_column(tmp_path: Path) -> None:
    rows = [{"q": "a", "a": "b"}, {"q": "a", "a": 5}]
    with pytest.raises(DataError, match=r"^train\.jsonl:2: a: is a number, text is needed"):
        encoded(tmp_path, rows, source={"columns": {"prompt": "q", "completion": "a"}})
