"""One instruction, several instances."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.data.row import Turn
from tests.data.formats.reading import examples, only, refuse


def row(*instances: Any) -> dict[str, Any]:
    return {"instruction": "Add.", "instances": list(instances)}


def test_an_example_for_each_instance() -> None:
    first, second = examples(
        "self-instruct", row({"input": "1 2", "output": "3"}, {"input": "", "output": "0"})
    )
    asked = Turn("instruction", "Add.")
    assert first.turns == (asked, Turn("input", "1 2"), Turn("assistant", "3", train=True))
    assert second.turns == (asked, Turn("assistant", "0", train=True))
    assert (first.place, second.place) == ("f.jsonl:7 (instance 1)", "f.jsonl:7 (instance 2)")


def test_a_single_instance_is_the_row() -> None:
    assert only("self-instruct", row({"output": "0"})).place == "f.jsonl:7"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"instances": [{"output": "x"}]}, "instruction: missing"),
        ({"instruction": "", "instances": [{"output": "x"}]}, "instruction: is empty"),
        ({"instruction": "a"}, "instances: missing"),
        ({"instruction": "a", "instances": None}, "instances: is null, a list of instances is n"),
        (row(), "instances: is empty"),
        (row("x"), "instances: instance 1 is text, an object is needed"),
        (row({"input": "x"}), "instances: instance 1 has no 'output'"),
        (row({"output": "x"}, {"output": ""}), "instances: instance 2 'output' is empty"),
        (row({"output": None}), "instances: instance 1 'output' is null, text is needed"),
        (row({"output": "x", "input": 3}), "instances: instance 1 'input' is a number, text is"),
    ],
)
def test_faulty_rows(values: dict[str, Any], message: str) -> None:
    refuse("self-instruct", values, message)
