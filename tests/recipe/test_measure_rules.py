"""Measures, tasks and gates by name: what is not measured cannot be judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.errors import UsageError
from qtune.recipe import load, to_yaml

HEAD = "model: {name_or_path: m}\ndata: {train: [{path: t.csv}], val_size: 0.1}\n"


def written(tmp_path: Path, text: str, head: str = HEAD) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(head + text)
    return path


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("gates: {min_measures: {bleu: 1}}", r":3: gates.min_measures: .*not measured"),
        ("eval: {generate_rows: 2}\ngates: {min_measures: {bleu: 1}}", ":4: gates.min_measures"),
        ("eval: {tasks: [a.yaml]}\ngates: {min_measure_gains: {b.x: 1}}", ":4: gates.min_measure"),
        (
            "eval: {generate_rows: 2}\ngates: {min_measures: {token_f1: 1, blue: 1}}",
            r"gates.min_measures: 'blue' is not measured \(did you mean bleu\?\)",
        ),
        (
            "eval: {tasks: [arc.yaml]}\ngates: {min_measures: {acr.x: 1}}",
            r"gates.min_measures: 'acr.x' is not measured \(did you mean arc.x\?\)",
        ),
        ("eval: {generate_rows: 2}\ncheckpoint: {metric: bleu}", "is not one of eval.measures"),
        ("eval: {measures: [bleu]}", "eval.measures: nothing would read it"),
        ("eval: {cache: static}", "eval.cache: nothing would read it"),
        ("eval: {generate_rows: 2, measures: [blue]}", r"did you mean bleu\?"),
        (
            "eval: {generate_rows: 2, at_start: false}\ngates: {min_measure_gains: {token_f1: 1}}",
            "is judged against the untouched base",
        ),
        ("task: classification\neval: {tasks: [a.yaml]}", "a classification has neither"),
    ],
)
def test_what_is_not_measured_is_not_judged(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        load(written(tmp_path, text))


def test_what_is_measured_may_be_named(tmp_path: Path) -> None:
    text = (
        "eval: {generate_rows: 2, measures: [bleu, chrf], tasks: [sub/arc.yaml]}\n"
        "checkpoint: {metric: bleu}\n"
        "gates: {min_measures: {bleu: 1, arc.accuracy: 0.3}, min_measure_gains: {chrf: 2}}\n"
    )
    recipe = load(written(tmp_path, text)).recipe
    assert recipe.eval.tasks == (str(tmp_path / "sub" / "arc.yaml"),)
    assert recipe.gates.min_measures == {"bleu": 1.0, "arc.accuracy": 0.3}


def test_tasks_need_no_held_out_rows(tmp_path: Path) -> None:
    head = "model: {name_or_path: m}\ndata: {train: [{path: t.csv}]}\n"
    text = "eval: {tasks: [arc.yaml]}\ngates: {min_measure_gains: {arc.accuracy: 0}}\n"
    recipe = load(written(tmp_path, text, head)).recipe
    assert len(recipe.eval.tasks) == 1
    kept = to_yaml(recipe, relative_to=tmp_path / "runs" / "x")
    assert 'tasks: ["../../arc.yaml"]' in kept or "tasks: [../../arc.yaml]" in kept
