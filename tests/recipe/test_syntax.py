from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qtune.errors import UsageError
from qtune.recipe.node import Node, Source
from qtune.recipe.syntax import parse

SOURCE = Source(name="a.yaml", label="a.yaml", folder=Path())


def fault(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, SOURCE)
    assert caught.value.code == 2
    return str(caught.value)


def child(node: Node, *steps: str | int) -> Node:
    for step in steps:
        below = node.child(step)
        assert below is not None
        node = below
    return node


def test_lines_are_those_of_the_keys() -> None:
    root = parse("a:\n\n  b:\n    - x\n    - {c: 1}\nd: >\n  text\n", SOURCE)
    lines = {("a",): 1, ("a", "b"): 3, ("a", "b", 0): 4, ("a", "b", 1, "c"): 5, ("d",): 6}
    assert {steps: child(root, *steps).line for steps in lines} == lines
    assert root.plain() == {"a": {"b": ["x", {"c": 1}]}, "d": "text\n"}


def test_quoted_scalars_are_text() -> None:
    assert parse("['1', \"true\", 'null', '']", SOURCE).plain() == ["1", "true", "null", ""]


def test_aliases_are_followed() -> None:
    assert parse("a: &x [1, 2]\nb: *x", SOURCE).plain() == {"a": [1, 2], "b": [1, 2]}


def test_byte_order_is_kept_and_safe_loader_is_untouched() -> None:
    parse("a: 2e-4", SOURCE)
    assert yaml.safe_load("[2e-4, no]") == ["2e-4", False]


def test_duplicate_keys_name_both_lines() -> None:
    text = fault("a: 1\nb: {c: 1,\n  c: 2}\na: 2\n")
    assert text.splitlines() == [
        "a.yaml:3: c: set twice, first in line 2",
        "a.yaml:4: a: set twice, first in line 1",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: !!python/object:os.system x", "a.yaml:1: the tag !!python/object:os.system is not"),
        ("a: !env X", "a.yaml:1: the tag !env is not allowed"),
        ("a: !!str 5", "a.yaml:1: the tag !!str is not allowed"),
        ("a: 1\n---\nb: 2", "a.yaml:2: a second document (---)"),
        ("a: 1\n\tb: 2", "a.yaml:2: a tab where YAML wants spaces"),
        ("x: &x {a: 1}\ny:\n  <<: *x", "a.yaml:3: merge keys (<<) are not supported"),
        ("a: b: c", "a.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: [1, 2", "a.yaml:1: not valid YAML"),
        ("a: *x", "a.yaml:1: not valid YAML: found undefined alias"),
        ("a:\n  - 1\n  b: 2", "a.yaml:3: not valid YAML"),
        ("[a]: 1", "a.yaml:1: a key must be a name"),
        ('"": 1', "a.yaml:1: a key must be a name"),
        ("a: b\x07", "a.yaml:1: the control character U+0007 is not allowed"),
        ("a: " + "[" * 5000, "a.yaml: nested deeper than 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "a.yaml: nested deeper than 50 levels"),
        ("- 1\n" * 30_000, "a.yaml:20000: more than 20000 values: this is no recipe"),
        ("a: &a [*a]", "a.yaml: nested deeper than 50 levels"),
    ],
)
def test_what_is_no_plain_yaml_gets_one_line(text: str, expected: str) -> None:
    message = fault(text)
    assert message.startswith(expected)
    assert "\n" not in message


def test_references_may_not_blow_up() -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "references unfold to more than" in fault("\n".join(rows))
