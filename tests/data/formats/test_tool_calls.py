"""Calls of tools, what the tools answer, and thoughts, in the spellings of several data sets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qtune.data.row import Example, Turn
from tests.data.formats.reading import only, refuse

ASKED = {"role": "user", "content": "Weather in Rome and Oslo?"}
ANSWER = {"role": "assistant", "content": "Sunny."}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def read(*messages: Any, **keys: Any) -> Example:
    return only("messages", {"messages": [ASKED, *messages, ANSWER], **keys})


def calling(call: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call], **keys}


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {"id": "c1", **CALL},
        {"name": "weather", "arguments": {"city": "Rome"}},
        {"function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    ],
    ids=["object", "id", "bare", "text"],
)
def test_a_call_in_any_spelling_is_openais_object(call: dict[str, Any]) -> None:
    turn = read(calling(call)).turns[1]
    assert turn == Turn("assistant", "", train=True, tool_calls=(CALL,))


@pytest.mark.parametrize("arguments", ["", None, "{}", {}])
def test_a_call_may_have_no_arguments(arguments: Any) -> None:
    turn = read(calling({"name": "now", "arguments": arguments})).turns[1]
    assert turn.tool_calls[0]["function"] == {"name": "now", "arguments": {}}


def test_the_call_as_it_was_before() -> None:
    call = {"name": "weather", "arguments": '{"city": "Rome"}'}
    turn = read({"role": "assistant", "content": "Wait.", "function_call": call}).turns[1]
    assert turn == Turn("assistant", "Wait.", train=True, tool_calls=(CALL,))


def test_several_calls_and_the_names_of_what_answers_them() -> None:
    calls = [{"id": "c1", **CALL}, {"id": "c2", "function": {"name": "news", "arguments": "{}"}}]
    asked = {"role": "assistant", "content": "", "tool_calls": calls}
    by_id = read(
        asked,
        {"role": "tool", "tool_call_id": "c2", "content": "war"},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "tool", "name": "own", "content": "x"},
    )
    assert [call["function"]["name"] for call in by_id.turns[1].tool_calls] == ["weather", "news"]
    assert [turn.name for turn in by_id.turns[2:5]] == ["news", "weather", "own"]
    assert by_id.turns[3] == Turn("tool", "sun", name="weather")
    by_order = read(asked, {"role": "tool", "content": "a"}, {"role": "tool", "content": "b"})
    assert [turn.name for turn in by_order.turns[2:4]] == ["weather", "news"]


@pytest.mark.parametrize("said", [[TOOL], [TOOL["function"]], json.dumps([TOOL["function"]])])
def test_tools_as_a_list_or_as_text(said: Any) -> None:
    assert read(tools=said).tools == (TOOL,)


@pytest.mark.parametrize("said", [None, "", [], "[]"])
def test_no_tools(said: Any) -> None:
    assert read(tools=said).tools == ()


def shared(*turns: tuple[str, str], **keys: Any) -> Example:
    items = [{"from": role, "value": text} for role, text in turns]
    return only("sharegpt", {"conversations": items, **keys})


def test_calls_and_observations_as_roles() -> None:
    call = json.dumps(CALL["function"])
    example = shared(
        ("human", "Rome?"),
        ("function_call", call),
        ("observation", '{"sky": "blue"}'),
        ("gpt", "Blue."),
        ("human", "Both?"),
        ("function_call", f"[{call}, {call}]"),
        ("observation", "1"),
        ("observation", "2"),
        ("gpt", "Both."),
        tools=json.dumps([TOOL["function"]]),
    )
    assert example.turns[:4] == (
        Turn("user", "Rome?"),
        Turn("assistant", "", train=True, tool_calls=(CALL,)),
        Turn("tool", '{"sky": "blue"}', name="weather"),
        Turn("assistant", "Blue.", train=True),
    )
    assert example.turns[5].tool_calls == (CALL, CALL)
    assert example.tools == (TOOL,)


def test_a_system_text_beside_the_turns() -> None:
    example = shared(("human", "a"), ("gpt", "b"), system="Be brief.")
    assert example.turns[0] == Turn("system", "Be brief.")
    example = shared(("system", "own"), ("human", "a"), ("gpt", "b"), system="Be brief.")
    assert [turn.text for turn in example.turns] == ["own", "a", "b"]


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_stand_beside_the_answer(key: str) -> None:
    turn = read({"role": "assistant", "content": "4", key: "2 and 2"}).turns[1]
    assert turn == Turn("assistant", "4", train=True, thinking="2 and 2")
    assert read({"role": "assistant", "content": "4", key: None}).turns[1].thinking == ""


def test_text_in_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read({"role": "assistant", "content": parts}).turns[1].text == "ab"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (calling(3), "turn 2 holds a number for a call, an object is needed"),
        (calling({"arguments": {}}), "turn 2 holds a call without the 'name' of a tool"),
        (calling({"name": 3}), "turn 2 holds a call without the 'name' of a tool"),
        (calling({"name": "x", "arguments": "{"}), "turn 2 calls x with arguments that are no JS"),
        (calling({"name": "x", "arguments": [1]}), "turn 2 calls x with arguments that are a lis"),
        (
            calling({"name": "x", "arguments": {"a": "\ud800"}}),
            "turn 2 holds half a surrogate pair",
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": {}},
            "turn 2 'tool_calls' is an object, a list is needed",
        ),
        ({"role": "assistant", "content": None, "tool_calls": []}, "'content' of turn 2 is null"),
        ({"role": "assistant", "tool_calls": None}, "turn 2 has no 'content'"),
        (
            {"role": "user", "content": "x", "tool_calls": [CALL]},
            "turn 2 calls tools, which only the assistant does",
        ),
        ({"role": "tool", "content": None}, "'content' of turn 2 is null, text is needed"),
        ({"role": "tool", "name": 3, "content": "x"}, "'name' of turn 2 is a number, text is"),
        ({"role": "assistant", "content": "a", "thinking": 3}, "'thinking' of turn 2 is a number"),
        (
            {"role": "assistant", "content": [{"type": "image_url"}]},
            "turn 2 holds a part of type 'image_url', only text parts are read",
        ),
        ({"role": "assistant", "content": ["a"]}, "turn 2 holds text, only text parts are read"),
        ({"role": "assistant", "content": []}, "'content' of turn 2 is a list, text is needed"),
    ],
)
def test_faulty_turns(message: dict[str, Any], fault: str) -> None:
    refuse("messages", {"messages": [ASKED, message, ANSWER]}, f"messages: {fault}")


@pytest.mark.parametrize(
    ("tools", "fault"),
    [
        ("{", "is no JSON"),
        ({}, "is an object, a list of tools is needed"),
        ("{}", "is an object, a list of tools is needed"),
        (["x"], "tool 1 is text, an object is needed"),
        ([TOOL, {}], "tool 2 has no 'name'"),
    ],
)
def test_faulty_tools(tools: Any, fault: str) -> None:
    refuse("messages", {"messages": [ASKED, ANSWER], "tools": tools}, f"tools: {fault}")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("search()", "turn 1 is a call, but no JSON (Expecting value)"),
        ("[]", "turn 1 is a list of no call"),
        ("3", "turn 1 holds a number for a call, an object is needed"),
        ("", "'value' of turn 1 is empty"),
    ],
)
def test_faulty_calls_of_sharegpt(value: str, fault: str) -> None:
    row = {"conversations": [{"from": "function_call", "value": value}]}
    refuse("sharegpt", row, f"conversations: {fault}")
