"""Ollama's templates against the chat templates they stand for, rendered by a small Go engine."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qtune import templates
from qtune.gguf import modelfile
from tests.tiny import tiny_tokenizer

TURNS = [
    [{"role": "user", "content": "Hi there"}],
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi there"}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi there"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "How are you?"},
    ],
    [
        {"role": "user", "content": "Hi there"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "How are you?"},
    ],
]


def parse(text: str) -> list[Any]:
    """Text and actions as a tree: (text,), (value,), ("if", [(test, body) ...]), ("range", ...)."""
    parts = re.split(r"\{\{ (.*?) \}\}", text)
    tokens = [("text" if n % 2 == 0 else "do", part) for n, part in enumerate(parts)]
    place = 0

    def block() -> list[Any]:
        nonlocal place
        found: list[Any] = []
        while place < len(tokens):
            kind, part = tokens[place]
            if kind == "do" and (part == "end" or part.startswith("else")):
                return found
            place += 1
            if kind == "text":
                found.append(("text", part))
            elif part.startswith("range"):
                found.append(("range", part, block()))
                place += 1
            elif part.startswith("if "):
                arms = [(part[3:], block())]
                while tokens[place][1].startswith("else"):
                    test = tokens[place][1].removeprefix("else").strip().removeprefix("if").strip()
                    place += 1
                    arms.append((test or "true", block()))
                place += 1
                found.append(("if", arms))
            else:
                found.append(("value", part))
        return found

    tree = block()
    assert place == len(tokens), "an action is not closed"
    return tree


def value_of(name: str, top: dict[str, Any], dot: dict[str, Any], number: int) -> Any:
    if name.startswith('"'):
        return name.strip('"')
    if name == "$n":
        return number
    if name.isdigit():
        return int(name)
    return top[name[2:]] if name.startswith("$.") else dot[name[1:]]


def holds(test: str, *at: Any) -> bool:
    if test == "true":
        return True
    if test.startswith("and "):
        inner, rest = re.fullmatch(r"and \((.*?)\) (.*)", test).groups()  # type: ignore[union-attr]
        return holds(inner, *at) and holds(rest, *at)
    if test.startswith("eq "):
        left, right = test[3:].split(" ", 1)
        return bool(value_of(left, *at) == value_of(right, *at))
    return bool(value_of(test, *at))


def run(tree: list[Any], top: dict[str, Any], dot: dict[str, Any], number: int = -1) -> str:
    out = ""
    for kind, *rest in tree:
        if kind == "text":
            out += rest[0]
        elif kind == "value":
            out += value_of(rest[0], top, dot, number)
        elif kind == "range":
            out += "".join(run(rest[1], top, one, n) for n, one in enumerate(top["Messages"]))
        else:
            at = (top, dot, number)
            out += next((run(body, *at) for test, body in rest[0] if holds(test, *at)), "")
    return out


def by_go(text: str, turns: list[dict[str, str]]) -> str:
    told = [turn["content"] for turn in turns if turn["role"] == "system"]
    messages = [{"Role": turn["role"], "Content": turn["content"]} for turn in turns]
    top = {"Messages": messages, "System": "\n\n".join(told)}
    return run(parse(text), top, top)


def by_jinja(text: str, turns: list[dict[str, str]]) -> str:
    written = tiny_tokenizer().apply_chat_template(
        turns, chat_template=text, tokenize=False, add_generation_prompt=True
    )
    return str(written).removeprefix("<s>")


@pytest.mark.parametrize("name", templates.ENDS)
def test_go_writes_what_jinja_writes(name: str) -> None:
    for turns in TURNS:
        ours = by_go(modelfile.in_go(name, "</s>"), turns)
        assert ours == by_jinja(templates.text_of(name), turns)


def test_templates_are_known_by_what_they_write() -> None:
    for name in templates.ENDS:
        found = modelfile.recognised(templates.text_of(name), by_jinja).name
        assert found == ("chatml" if name == "qwen" else name)  # they write plain turns alike
    own = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert modelfile.recognised(own, by_jinja).name == "chatml"
    other = modelfile.recognised(own.replace("im_start", "turn"), by_jinja)
    assert other.name is None
    assert "none of the built-in ones" in other.reason
    assert "no chat template" in modelfile.recognised(None, by_jinja).reason
    assert "refuses" in modelfile.recognised("{{ raise_exception('no') }}", by_jinja).reason


def test_the_file() -> None:
    text = modelfile.modelfile(
        base="base.gguf",
        adapter="lora.gguf",
        template=modelfile.Template("phi"),
        eos="</s>",
        stops=["<|end|>"],
    )
    assert text == (
        "FROM ./base.gguf\nADAPTER ./lora.gguf\n"
        'TEMPLATE """{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}'
        '<|assistant|>\n"""\nPARAMETER stop "<|end|>"\n'
    )
    bare = modelfile.modelfile(
        base="m.gguf", adapter=None, template=modelfile.Template(None, "why"), eos="", stops=[]
    )
    assert bare.startswith("FROM ./m.gguf\n# no TEMPLATE: why")
