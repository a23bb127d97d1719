"""What the columns of a row can be read as: each reading with its format, columns and reason.

Columns that only one kind of row has (an answer chosen and one rejected, ids, choices ...) decide
alone. Otherwise every reading is told, and text alone is one only where there is no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qtune.data.formats.tokens import MASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHATS = ("messages", "conversations", "conversation", "chat", "dialog")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
    ("inputs", "targets"),
    ("source", "target"),
)
OUTPUTS = ("output", "response")
QUESTIONS = ("query", "question", "prompt")
GOLDS = ("gold", "answer", "answerKey", "answer_key", "label")
VERDICTS = ("label", "kto_tag")
TEXTS = ("text", "sentence")
LABELS = ("label_text", "label", "labels", "category", "class", "intent", "target")
CHOICES = ("choices", "options")
ALIASES = frozenset().union(
    CHATS, *PAIRS, OUTPUTS, QUESTIONS, GOLDS, VERDICTS, TEXTS, LABELS, CHOICES, ("context",)
)
NUMBERS = ("question_id", "turns")


class Reading(NamedTuple):
    """One way to read a row."""

    name: str
    columns: dict[str, str]
    why: str


class Found:
    """The columns of a row under the names of fields, with what stands in them."""

    def __init__(self, values: Mapping[str, Any], mapped: Mapping[str, str]) -> None:
        self.values = values
        self.mapped = mapped
        fields = {**{column: column for column in values}, **mapped}
        self.fields = {field: column for field, column in fields.items() if column in values}

    def __contains__(self, field: str) -> bool:
        return field in self.fields

    def value(self, field: str) -> Any:
        """What stands in a field, None when there is none."""
        return self.values.get(self.fields.get(field, ""))

    def first(self, *names: str, kind: type | tuple[type, ...] = object) -> str | None:
        """The column of the first of some fields that holds a value of a kind."""
        found = (name for name in names if name in self and isinstance(self.value(name), kind))
        return self.fields.get(next(found, ""))

    def columns(self, *names: str) -> dict[str, str]:
        """Those of some fields that are there."""
        return {name: self.fields[name] for name in names if name in self.fields}


def readings(values: Mapping[str, Any], mapped: Mapping[str, str]) -> list[Reading]:
    """Every reading of a row whose fields may be mapped to columns."""
    found = Found(values, mapped)
    telling = [reading for rule in _TELLING if (reading := rule(found))]
    return telling or [*_chats(found), *_pairs(found)] or list(_texts(found))


def unanswered(values: Mapping[str, Any]) -> str:
    """Why a row seems to hold questions without answers; empty when it does not."""
    turns = values.get("turns")
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        return "turns holds what users say, and no column holds what is answered"
    if "question_id" in values and not any(answer in values for _, answer in PAIRS):
        return "question_id says that these are questions, and no column holds answers"
    return ""


def _tokens(found: Found) -> Reading | None:
    if not isinstance(found.value("input_ids"), list):
        return None
    columns = found.columns("input_ids", "labels", *MASKS)
    return Reading("tokens", columns, f"{_found(columns)}: the rows are tokenised")


def _preference(found: Found) -> Reading | None:
    """Beside both answers, an output is one of them or neither: a pair it is in any case."""
    if "chosen" not in found or "rejected" not in found:
        return None
    names = ["instruction", "input"] if "instruction" in found else []
    prompts = [name for name in ("prompt", "messages", "conversations") if name in found]
    columns = found.columns(*(names or prompts), "chosen", "rejected")
    if not (names or prompts) and (question := found.first("question", "query", kind=str)):
        columns = {"prompt": question, **columns}
    return Reading("preference", columns, f"{_found(columns)}: two answers, one preferred")


def _tree(found: Found) -> Reading | None:
    root = found.value("prompt")
    if not isinstance(root, dict) or "replies" not in root:
        return None
    columns = found.columns("prompt")
    return Reading("tree", columns, f"column {columns['prompt']} holds a message with its replies")


def _instances(found: Found) -> Reading | None:
    if "instruction" not in found or not isinstance(found.value("instances"), list):
        return None
    columns = found.columns("instruction", "instances")
    return Reading("self-instruct", columns, f"{_found(columns)}, a list")


def _choices(found: Found) -> Reading | None:
    choices = found.first(*CHOICES, kind=(list, dict))
    question, gold = found.first(*QUESTIONS, kind=str), found.first(*GOLDS, kind=(int, str))
    if choices is None or question is None or gold is None:
        return None
    columns = {"query": question, "choices": choices, "gold": gold}
    return Reading("multiple-choice", columns, f"{_found(columns)}: a question and its choices")


def _unpaired(found: Found) -> Reading | None:
    verdict = found.first(*VERDICTS, kind=bool)
    if verdict is None:
        return None
    chat = next((field for field in ("messages", "conversations") if field in found), None)
    answer = found.first("completion", "response", "output")
    if chat is not None:
        columns = {chat: found.fields[chat], "label": verdict}
    elif answer is not None and ("prompt" in found or "instruction" in found):
        names = ("instruction", "input") if "instruction" in found else ("prompt",)
        columns = {**found.columns(*names), "completion": answer, "label": verdict}
    else:
        return None
    return Reading("unpaired", columns, f"{_found(columns)}: answers, wanted or not ({verdict})")


_TELLING: tuple[Callable[[Found], Reading | None], ...] = (
    _tokens,
    _preference,
    _tree,
    _instances,
    _choices,
    _unpaired,
)


def _chats(found: Found) -> Iterator[Reading]:
    """Columns that hold a list of turns, told apart by the keys of their first turn."""
    for field in CHATS:
        column = found.fields.get(field, "")
        turns = found.value(field)
        if not column or not isinstance(turns, list):
            continue
        first = turns[0] if turns else {}
        keys = first if isinstance(first, dict) else {}
        beside = found.columns("tools", "system")
        with_tools = f", column {beside['tools']} the tools" if "tools" in beside else ""
        if "from" in keys or (field == "conversations" and "role" not in keys):
            why = f"column {column} holds from/value turns{with_tools}"
            yield Reading("sharegpt", {"conversations": column, **beside}, why)
        elif "role" in keys or field == "messages":
            why = f"column {column} holds role/content turns{with_tools}"
            yield Reading("messages", {"messages": column, **beside}, why)


def _pairs(found: Found) -> Iterator[Reading]:
    """Instructions, and prompts and completions in other columns than theirs."""
    output = found.first(*OUTPUTS)
    taken: set[str] = set()
    if "instruction" in found and output is not None:
        given = found.first("input", "context")
        columns = found.columns("instruction") | ({} if given is None else {"input": given})
        columns["output"] = output
        taken = set(columns.values())
        yield Reading("alpaca", columns, _found(columns))
    for prompt, completion in PAIRS:
        if prompt in found and completion in found:
            columns = {"prompt": found.fields[prompt], "completion": found.fields[completion]}
            if taken & set(columns.values()):
                continue
            yield Reading("prompt-completion", columns, _found(columns))


def _texts(found: Found) -> Iterator[Reading]:
    """A text with its label, or alone."""
    text = found.first(*TEXTS)
    names = ("label", *LABELS) if "label" in found.mapped else LABELS
    label = found.first(*names, kind=(str, int, float, type(None)))
    if text is not None and label is not None and label != text:
        columns = {"text": text, "label": label}
        yield Reading("classification", columns, f"{_found(columns)}: a text and its label")
    elif "text" in found:
        columns = found.columns("text")
        yield Reading("text", columns, _found(columns))


def _found(columns: Mapping[str, str]) -> str:
    many = "columns" if len(columns) > 1 else "column"
    return f"found the {many} {', '.join(columns.values())}"
