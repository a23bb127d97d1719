"""The tables of `qtune eval`: models across, measures down, and what each step changed."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from qtune.cli.eval_table import tables


def side(loss: float, accuracy: float) -> dict[str, Any]:
    task = {"kind": "choices", "rows": 9, "accuracy": accuracy}
    return {"loss": loss, "loss_low": loss - 0.1, "loss_high": loss + 0.1, "tasks": {"arc": task}}


def moved(loss: float, chance: float) -> dict[str, Any]:
    return side(loss, 0.0) | {"loss_p": chance}


REPORT: dict[str, Any] = {
    "rows": 12,
    "base_model": "tiny",
    "adapter": side(1.25, 0.5),
    "base": side(3.5, 0.25),
    "difference": moved(-2.25, 0.001),
}


def shown(report: dict[str, Any]) -> list[str]:
    stream = StringIO()
    for table in tables(report):
        Console(file=stream, width=100).print(table)
    return stream.getvalue().splitlines()


def test_adapter_beside_base() -> None:
    lines = shown(REPORT)
    assert lines[0].split() == ["12", "rows", "base", "(tiny)", "adapter", "difference"]
    assert next(line for line in lines if line.startswith("loss")).split() == [
        "loss",
        "3.5",
        "1.25",
        "-2.25",
        "*",
    ]
    assert any("p = 0.001" in line for line in lines)
    assert next(line for line in lines if "arc" in line).split()[:4] == [
        "arc:",
        "accuracy",
        "0.25",
        "0.5",
    ]


def test_four_models_and_what_changed_them() -> None:
    more = {"base16": side(3.25, 0.25), "merged": side(1.25, 0.5)}
    steps = {
        "quantization": moved(0.25, 0.2),
        "tuning": moved(-2.25, 0.001),
        "merge": moved(0.0, 1.0),
    }
    lines = shown(REPORT | more | {"comparisons": steps})
    words = "12 rows base, 16 bits base (tiny) adapter merged"
    assert lines[0].split() == words.split()
    second = next(line for line in lines if line.startswith("what changed"))
    assert second.split()[3:] == ["quantizing", "the", "adapter", "merging"]
    losses = [line.split()[1:] for line in lines if line.startswith("loss")]
    assert losses == [["3.25", "3.5", "1.25", "1.25"], ["0.25", "-2.25", "*", "0"]]
