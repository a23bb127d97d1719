"""Faulty training rows: exit 3 with file, line and field, before any weight is read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.cli.bad_cases import POINTER, Case, Change, both, file, gone, lines, section, source
from tests.tiny import tiny_tokenizer

GOOD = {"prompt": "a", "completion": "b"}
LINE = json.dumps(GOOD) + "\n"


def rows(*content: Any) -> Change:
    """train.jsonl with these rows."""
    return lines("train.jsonl", *content)


def text(content: str | bytes) -> Change:
    """train.jsonl with this content."""
    return file("train.jsonl", content)


def chat(*messages: Any) -> Change:
    """A good chat in the first line of train.jsonl, and this one in the second."""
    good = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return rows({"messages": good}, {"messages": list(messages)})


def _no_template(folder: Path) -> None:
    """A tokenizer without a chat template, and chats to learn."""
    for name in ("chat_template.jinja",):
        (folder / "base" / name).unlink(missing_ok=True)
    path = folder / "base" / "tokenizer_config.json"
    kept = {
        key: value for key, value in json.loads(path.read_text()).items() if key != "chat_template"
    }
    path.write_text(json.dumps(kept))
    chat({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})(folder)


def _two_beginnings(folder: Path) -> None:
    """A template that writes the beginning itself, for one row twice."""
    twice = "{{ bos_token }}{% if messages | length > 2 %}{{ bos_token }}{% endif %}"
    (folder / "twice.jinja").write_text(twice + tiny_tokenizer().chat_template.split("}}", 1)[1])
    section("model", chat_template="./twice.jinja")(folder)
    answer = {"role": "assistant", "content": "b"}
    chat(USER, answer, USER, answer)(folder)


USER = {"role": "user", "content": "a"}
PART_OF_GZIP = gzip.compress(LINE.encode() * 50)[:-12]
FILES = {
    "no data file": Case(3, ("nope.jsonl", "no such"), set=("data.train.0.path=./nope.jsonl",)),
    "a misspelt data file": Case(
        3, ("did you mean train.jsonl",), set=("data.train.0.path=./trian.jsonl",)
    ),
    "an empty data file": Case(3, ("train.jsonl", "no rows"), text("")),
    "blank lines only": Case(3, ("train.jsonl", "no rows"), text("\n\n \n")),
    "a kind nobody reads": Case(3, ("rows.doc", "unknown kind"), source("rows.doc", "a")),
    "a folder without data": Case(
        3, ("run", "without data", "empty"), set=("data.train.0.path=./run/",)
    ),
    "a glob without files": Case(
        3, ("*.csv", "no file matches"), set=("data.train.0.path=./*.csv",)
    ),
    "a git-lfs pointer": Case(3, ("train.jsonl", "git lfs pull"), text(POINTER)),
    "a git-lfs pointer in json": Case(3, ("r.json", "git lfs pull"), source("r.json", POINTER)),
    "a git-lfs pointer in csv": Case(3, ("r.csv", "git lfs pull"), source("r.csv", POINTER)),
    "a git-lfs pointer in txt": Case(3, ("r.txt", "git lfs pull"), source("r.txt", POINTER)),
    "a git-lfs pointer in parquet": Case(
        3, ("r.parquet", "git lfs pull"), source("r.parquet", POINTER)
    ),
    "a git-lfs pointer in gz": Case(
        3, ("r.jsonl.gz", "git lfs pull"), source("r.jsonl.gz", POINTER)
    ),
    "gz cut": Case(3, ("r.jsonl.gz", "not a whole gzip"), source("r.jsonl.gz", PART_OF_GZIP)),
    "gz that is none": Case(3, ("r.jsonl.gz", "not a whole gzip"), source("r.jsonl.gz", LINE)),
    "gz without its name": Case(3, ("train.jsonl", "gzip", ".gz"), text(gzip.compress(b"{}"))),
    "a zip archive": Case(3, ("train.jsonl", "zip", "unpack"), text(b"PK\x03\x04rest")),
    "parquet cut": Case(3, ("r.parquet",), source("r.parquet", b"PAR1" + b"\0" * 40)),
    "parquet without its name": Case(3, ("train.jsonl", "parquet"), text(b"PAR1" + b"\0" * 40)),
    "arrow of no byte": Case(3, ("r.arrow",), source("r.arrow", b"")),
    "UTF-16": Case(3, ("train.jsonl:1", "UTF-16", "iconv"), text(LINE.encode("utf-16"))),
    "not UTF-8": Case(
        3, ("train.jsonl:1", "0xe9", "byte 13", "iconv"), text(b'{"prompt": "\xe9"}\n')
    ),
    "NUL bytes": Case(3, ("train.jsonl:2", "NUL"), text(LINE + '{"prompt": "a\0"}\n')),
    "a broken line": Case(3, ("train.jsonl:2", "column"), text(LINE + '{"prom: 1}\n' + LINE)),
    "a cut last line": Case(3, ("train.jsonl:2", "cut"), text(LINE + LINE[:20])),
    "a line that is no object": Case(3, ("train.jsonl:1", "object", "list"), text("[1]\n")),
    "a JSON list in lines": Case(3, ("train.jsonl:1", ".json"), text(f"[\n{LINE}]\n")),
    "numbers JSON has not": Case(
        3, ("train.jsonl:1",), text('{"prompt": "a", "completion": NaN}\n')
    ),
    "a lone surrogate": Case(
        3, ("train.jsonl:2", "surrogate"), text(LINE + '{"prompt": "a", "completion": "\\ud83d"}\n')
    ),
    "json with more behind it": Case(
        3, ("r.json", "more text"), source("r.json", f"[{LINE}]\nmore")
    ),
    "json cut": Case(3, ("r.json:",), source("r.json", f"[{LINE},\n")),
    "csv of another length": Case(
        3, ("r.csv:3", "3 columns", "2"), source("r.csv", "prompt,completion\na,b\na,b,c\n")
    ),
    "a csv header doubled": Case(3, ("r.csv:1", "twice"), source("r.csv", "prompt,prompt\na,b\n")),
    "a csv quote left open": Case(
        3, ("r.csv:2", "quote"), source("r.csv", 'prompt,completion\n"a,b\n')
    ),
    "a csv header alone": Case(3, ("r.csv", "no rows"), source("r.csv", "prompt,completion\n")),
}
COLUMNS = {
    "wrong columns": Case(
        3, ("train.jsonl", "question", "prompt"), rows({"inquiry": "a", "question": "a"})
    ),
    "columns renamed to nothing": Case(
        3,
        ("nope",),
        section("data", train=[{"path": "./train.jsonl", "columns": {"prompt": "nope"}}]),
    ),
    "a field the format has not": Case(
        2,
        ("nope", "prompt"),
        section(
            "data",
            train=[
                {"path": "./train.jsonl", "format": "prompt-completion", "columns": {"nope": "a"}}
            ],
        ),
    ),
    "ambiguous columns": Case(
        3,
        ("train.jsonl", "messages", "prompt", "format"),
        rows(GOOD | {"messages": [USER, {"role": "assistant", "content": "b"}]}),
    ),
    "a format that does not fit": Case(
        3, ("messages",), section("data", train=[{"path": "./train.jsonl", "format": "messages"}])
    ),
    "preference pairs": Case(
        2, ("preference",), rows({"prompt": "a", "chosen": "b", "rejected": "c"})
    ),
    "a number as completion": Case(
        3, ("train.jsonl:1", "completion", "number"), rows({"prompt": "a", "completion": 5})
    ),
    "null as completion": Case(
        3, ("train.jsonl:2", "completion", "null"), rows(GOOD, {"prompt": "a", "completion": None})
    ),
    "a list as completion": Case(
        3, ("train.jsonl:2", "completion", "list"), rows(GOOD, {"prompt": "a", "completion": ["b"]})
    ),
    "a number as prompt": Case(
        3, ("train.jsonl:2", "prompt", "number"), rows(GOOD, {"prompt": 1, "completion": "b"})
    ),
    "an object as text": Case(
        3, ("train.jsonl:2", "text", "object"), rows({"text": "a"}, {"text": {}})
    ),
    "null as text": Case(3, ("train.jsonl:2", "text", "null"), rows({"text": "a"}, {"text": None})),
    "a missing completion": Case(3, ("train.jsonl:2", "completion"), rows(GOOD, {"prompt": "a"})),
    "every completion empty": Case(
        3, ("train.jsonl:3", "completion"), rows(*[{"prompt": "a", "completion": ""}] * 3)
    ),
    "one completion empty": Case(
        3,
        ("train.jsonl:2", "completion", "empty"),
        rows(GOOD, {"prompt": "a", "completion": ""}, GOOD),
    ),
    "every text empty": Case(3, ("train.jsonl:1",), rows(*[{"text": ""}] * 2)),
}
CHATS = {
    "messages that are no list": Case(
        3,
        ("train.jsonl:2", "messages"),
        rows({"messages": [USER, USER | {"role": "assistant"}]}, {"messages": "a"}),
    ),
    "no messages": Case(3, ("train.jsonl:2", "messages", "empty"), chat()),
    "a message that is text": Case(3, ("train.jsonl:2", "messages"), chat("hello")),
    "a message without a role": Case(3, ("train.jsonl:2", "role"), chat(USER, {"content": "b"})),
    "a message without content": Case(
        3, ("train.jsonl:2", "content"), chat(USER, {"role": "assistant"})
    ),
    "a message of null": Case(
        3,
        ("train.jsonl:2", "content", "null"),
        chat({"role": "user", "content": None}, USER | {"role": "assistant"}),
    ),
    "a message of a number": Case(
        3, ("train.jsonl:2", "content", "number"), chat(USER, {"role": "assistant", "content": 3})
    ),
    "an unknown role": Case(
        3, ("train.jsonl:2", "role", "teacher"), chat({"role": "teacher", "content": "a"})
    ),
    "no assistant turn": Case(3, ("train.jsonl:2", "assistant"), chat(USER)),
    "an empty answer": Case(
        3, ("train.jsonl:2",), chat(USER, {"role": "assistant", "content": ""})
    ),
    "no chat template": Case(3, ("chat template", "model.chat_template"), _no_template),
    "two beginnings": Case(3, ("train.jsonl:2", "2", "<s>"), _two_beginnings),
}
AMOUNTS = {
    "every row too long": Case(3, ("0 of 12", "max_length"), set=("data.max_length=2",)),
    "more held out than there is": Case(3, ("val_size", "12"), set=("data.val_size=12",)),
    "a split that is not there": Case(
        2, ("split", "jsonl"), section("data", train=[{"path": "./train.jsonl", "split": "test"}])
    ),
    "a split of no rows": Case(
        3,
        ("train.jsonl",),
        section("data", train=[{"path": "./train.jsonl", "split": "train[20:]"}]),
    ),
    "a split nobody can read": Case(
        2, ("train[",), section("data", train=[{"path": "./train.jsonl", "split": "train[a:"}])
    ),
    "a split that the file has not": Case(
        2,
        ("r.json", "test", "train"),
        both(
            file("r.json", json.dumps({"train": [GOOD], "dev": [GOOD]})),
            section("data", train=[{"path": "./r.json", "split": "test"}]),
        ),
    ),
    "folders of several kinds": Case(
        3,
        ("several kinds",),
        both(
            file("rows/a.jsonl", LINE),
            file("rows/b.csv", "a,b\n"),
            section("data", train=[{"path": "./rows"}]),
        ),
    ),
    "a column to split by that is not there": Case(
        3,
        ("author", "prompt, completion"),
        set=("data.val_size=2", "data.split_by=author"),
        lines=11,
    ),
    "evaluation rows that are not there": Case(
        3, ("held.jsonl",), section("data", eval=[{"path": "./held.jsonl"}])
    ),
    "faulty evaluation rows": Case(
        3,
        ("held.jsonl:1", "completion"),
        both(
            lines("held.jsonl", {"prompt": "a", "completion": 1}),
            section("data", eval=[{"path": "./held.jsonl"}]),
        ),
    ),
    "too many faulty rows to skip": Case(
        3, ("train.jsonl",), rows(GOOD, {"prompt": 1}, {"prompt": 2}), set=("data.on_bad_row=skip",)
    ),
    "faults in many places": Case(
        3,
        ("train.jsonl:1", "train.jsonl:10", "and 89 more"),
        rows(*[{"prompt": "a", "completion": n} for n in range(99)]),
        lines=11,
    ),
    "json nested too deeply": Case(3, ("r.json", "nested"), source("r.json", "[" * 99999)),
    "a line nested too deeply": Case(3, ("train.jsonl:2", "nested"), text(LINE + "[" * 99999)),
    "data removed": Case(3, ("train.jsonl", "no such"), gone("train.jsonl")),
}
CASES = {f"data: {name}": case for name, case in {**FILES, **COLUMNS, **CHATS, **AMOUNTS}.items()}
