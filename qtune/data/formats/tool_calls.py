"""Tools and the calls of them, in the several spellings of data sets, made OpenAI's objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qtune.data.readers.jsonl import json_kind

if TYPE_CHECKING:
    from qtune.data.formats.base import Fields


def calls_of(
    fields: Fields, field: str, item: dict[str, Any], at: str
) -> tuple[dict[str, Any], ...]:
    """The calls of a turn in its `tool_calls`, or in `function_call` as it was before."""
    calls = item.get("tool_calls")
    if calls is None and item.get("function_call") is not None:
        calls = [item["function_call"]]
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise fields.fault(field, f"{at}'tool_calls' is {json_kind(calls)}, a list is needed")
    return tuple(_call(fields, field, call, at) for call in calls)


def calls_in(fields: Fields, field: str, text: str, at: str) -> tuple[dict[str, Any], ...]:
    """The calls of a turn that is one call, or a list of calls, written as JSON."""
    value = _parsed(fields, field, text, f"{at}is a call, but no JSON")
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise fields.fault(field, f"{at}is a list of no call")
    return tuple(_call(fields, field, call, at) for call in calls)


def tools_of(fields: Fields) -> tuple[dict[str, Any], ...]:
    """The tools of a row as the chat template gets them: a list, or a list written as JSON."""
    tools = fields.optional("tools")
    if tools is None or tools in ("", []):
        return ()
    if isinstance(tools, str):
        tools = _parsed(fields, "tools", tools, "is no JSON")
    if not isinstance(tools, list):
        raise fields.fault("tools", f"is {json_kind(tools)}, a list of tools is needed")
    return tuple(_tool(fields, number, tool) for number, tool in enumerate(tools, 1))


def _call(fields: Fields, field: str, call: Any, at: str) -> dict[str, Any]:
    inner = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(inner, dict):
        raise fields.fault(field, f"{at}holds {json_kind(inner)} for a call, an object is needed")
    name = inner.get("name")
    if not isinstance(name, str) or not name:
        raise fields.fault(field, f"{at}holds a call without the 'name' of a tool")
    arguments = inner.get("arguments", inner.get("parameters"))
    where = f"{at}calls {name} with arguments that are "
    if isinstance(arguments, str) and arguments.strip():
        arguments = _parsed(fields, field, arguments, f"{where}no JSON")
    if arguments is None or arguments == "":
        arguments = {}
    if not isinstance(arguments, dict):
        raise fields.fault(field, f"{where}{json_kind(arguments)}, an object is needed")
    _check_text(fields, field, arguments, at)
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _tool(fields: Fields, number: int, tool: Any) -> dict[str, Any]:
    inner = tool.get("function", tool) if isinstance(tool, dict) else tool
    if not isinstance(inner, dict):
        raise fields.fault("tools", f"tool {number} is {json_kind(inner)}, an object is needed")
    if not isinstance(inner.get("name"), str) or not inner["name"]:
        raise fields.fault("tools", f"tool {number} has no 'name'")
    _check_text(fields, "tools", inner, f"tool {number} ")
    return {"type": "function", "function": inner}


def _parsed(fields: Fields, field: str, text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise fields.fault(field, f"{what} ({reason})") from None


def _check_text(fields: Fields, field: str, value: Any, at: str) -> None:
    """All text in an object can be encoded."""
    fields.checked(field, json.dumps(value, ensure_ascii=False), at=at)
