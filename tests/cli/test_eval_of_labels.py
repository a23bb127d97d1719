"""What `qtune eval` shows of a classification."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from qtune.cli.eval_command import confusions
from qtune.cli.eval_table import tables

SIDE = {
    "loss": 0.5,
    "loss_low": 0.4,
    "loss_high": 0.6,
    "accuracy": 0.75,
    "accuracy_low": 0.7,
    "accuracy_high": 0.8,
    "macro_f1": 0.625,
    "matthews": 0.5,
    "confused": [{"label": "a", "given": "b", "rows": 3}, {"label": "c", "given": "a", "rows": 1}],
}


def test_measures_and_what_is_confused() -> None:
    report = {"rows": 16, "base_model": "x", "model": SIDE}
    shown = StringIO()
    Console(file=shown, width=100).print(*tables(report))
    for text in ("accuracy", "0.75", "0.7 .. 0.8", "macro f1", "0.625", "matthews"):
        assert text in shown.getvalue()
    assert "perplexity" not in shown.getvalue()
    assert confusions(report) == "taken for another: a as b (3), c as a (1)"


def test_a_language_model_confuses_no_labels() -> None:
    assert confusions({"model": {"loss": 1.0}}) == ""
