"""What the cards tell of a run: from its newest evaluation, its report and its lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtune.run import cards
from qtune.run.subject import resolve
from tests.run.made_run import make_run

HASH = "ab" * 32


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("made"))
    asked = (run / "recipe.yaml").read_text()
    (run / "recipe.lock.yaml").write_text(f"{asked}pins: {{data: {{train.0: {HASH}}}}}\n")
    report = {
        "adapter_step": 4,
        "evaluations": [{"step": 0, "loss": 3.0}, {"step": 4, "loss": 1.5}],
        "data": {"train": {"sources": [{"rows_used": 12}]}, "eval": None},
        "tasks": {
            "adapter": {
                "quiz": {"kind": "choices", "right": 0.8, "right_low": 0.7, "right_high": 0.9}
            },
            "base": {
                "quiz": {"kind": "choices", "right": 0.5, "right_low": 0.4, "right_high": 0.6}
            },
        },
    }
    (run / "report.json").write_text(json.dumps(report))
    return run


def test_data_and_measures_of_the_runs_own_report(run: Path) -> None:
    facts = cards.facts_of(resolve(str(run)))
    assert facts.data == (("train: train.jsonl", "12", HASH), ("eval: test.jsonl", "", ""))
    loss, quiz = facts.measures
    assert (loss.name, loss.value, loss.low, loss.base) == ("loss", 1.5, None, 3.0)
    assert (quiz.name, quiz.value, quiz.low, quiz.high, quiz.base) == (
        "quiz.right",
        0.8,
        0.7,
        0.9,
        0.5,
    )
    assert facts.recipe["method.rank"] == 4
    assert not facts.base_on_hub
    assert str(run.parent) not in str(facts)


def test_an_evaluation_with_intervals_goes_before_it(run: Path) -> None:
    side = {"loss": 1.4, "loss_low": 1.3, "loss_high": 1.5, "tokens": 9}
    side |= {"answers": {"exact_match": 0.5, "exact_match_low": 0.2, "exact_match_high": 0.8}}
    content = {"rows": 9, "adapter": side, "base": {"loss": 3.1}}
    (run / "eval.json").write_text(json.dumps(content))
    facts = cards.facts_of(resolve(str(run)))
    (run / "eval.json").unlink()
    assert facts.rows == 9
    assert [(one.name, one.value, one.low, one.high, one.base) for one in facts.measures] == [
        ("loss", 1.4, 1.3, 1.5, 3.1),
        ("exact_match", 0.5, 0.2, 0.8, None),
    ]


def test_the_licence_is_what_the_bases_own_card_says(tmp_path: Path) -> None:
    assert cards.licence_of(tmp_path) is None
    for text, wanted in (
        ("---\nlicense: mit\ntags: [a]\n---\n# it\n", "mit"),
        ("# license: mit\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\n: {\n---\n", None),
    ):
        (tmp_path / "README.md").write_text(text)
        assert cards.licence_of(tmp_path) == wanted


def test_a_lone_adapter_without_its_base_has_a_card(run: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    for path in (run / "adapter").glob("adapter_*"):
        (tmp_path / "alone" / path.name).write_bytes(path.read_bytes())
    cards.leave_beside(tmp_path / "alone")
    card = (tmp_path / "alone" / "README.md").read_text()
    assert "An adapter on base: lora of rank 4" in card
    assert "library_name: peft" in card
