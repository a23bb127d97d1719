from __future__ import annotations

from typing import Any

from qtune.runs.summary import failure, summary
from qtune.runs.verdict import Verdict

REPORT: dict[str, Any] = {
    "recipe": "my_recipe",
    "steps": 12,
    "tokens": 3400,
    "loss_first": 2.5,
    "loss_last": 1.25,
    "tokens_per_second": 99.5,
    "memory": {"measured_peak_bytes": 2_000_000_000},
    "seconds": 61.4,
    "adapter_step": 8,
    "evaluations": [
        {"step": 0, "loss": 3.0},
        {"step": 8, "loss": 1.0},
        {"step": 12, "loss": 1.5},
    ],
}
VERDICTS = [
    Verdict(gate="max_loss", limit=0.5, actual=1.0),
    Verdict(gate="min_loss_drop", limit=1.0, actual=2.0),
]


def _tables(text: str) -> list[list[list[str]]]:
    """Every table of the text as rows of cells."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return [[[c.strip() for c in row[1:-1].split("|")] for row in block] for block in blocks]


def test_a_run_on_half_a_page() -> None:
    text = summary(REPORT, VERDICTS)
    assert text.startswith("### qtune: my\\_recipe: 1 of 2 gates held\n")
    facts, held_out, gates = _tables(text)
    assert ["loss", "2.5000 → 1.2500"] in facts
    assert held_out[0] == ["held out", "step 0", "step 8 (adapter)", "step 12"]
    assert held_out[2] == ["loss", "3.0000", "1.0000", "1.5000"]
    assert gates[2:] == [
        ["`max_loss`", "0.5", "1", "**failed**"],
        ["`min_loss_drop`", "1", "2", "passed"],
    ]
    assert all(len({len(row) for row in table}) == 1 for table in (facts, held_out, gates))


def test_without_held_out_rows_and_gates() -> None:
    bare = REPORT | {"evaluations": [], "tokens_per_second": None}
    text = summary(bare, [])
    assert text.startswith("### qtune: my\\_recipe\n")
    assert len(_tables(text)) == 1


def test_a_failure_is_told_in_its_own_words() -> None:
    text = failure("x", ["a|b <script>\nmore"], 3)
    assert text == "### qtune: x ended with exit code 3\n\n- a\\|b \\<script\\> more\n"
