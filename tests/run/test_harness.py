"""lm-eval: what is missing is told before weights; its tasks come to the same as our own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from qtune.errors import UsageError
from qtune.run.bench import Limits
from qtune.run.display import Quiet
from qtune.run.eval import evaluate
from qtune.run.harness import _tallies, read_harness
from tests.tiny import save_tiny

ROWS = [{"query": f"q{n} is", "choices": ["one", "two", "three"], "gold": n % 3} for n in range(6)]


def test_a_missing_package_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"--lm-eval.*pip install 'qtune\[lm-eval\]'"):
        read_harness(["arc_easy"])
    assert read_harness([]) == []


def test_only_means_over_rows_are_taken() -> None:
    samples = [{"acc": 1.0, "word_perplexity": (1.0, 2)}, {"acc": 0.0, "word_perplexity": (3.0, 4)}]
    aggregated = {
        "alias": "x",
        "acc,none": 0.5,
        "acc_stderr,none": 0.1,
        "word_perplexity,none": 3.5,
    }
    found = _tallies(samples, aggregated)
    assert found.keys() == {"acc"}
    assert found["acc"].by_row == [1.0, 0.0]


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval")
def test_a_harness_task_is_our_own_task(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(
        f"task: theirs\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_choice: choices\n"
        'doc_to_target: gold\ndoc_to_text: "{{query}}\\nAnswer:"\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    ours.write_text(f"kind: choices\ndata: {{path: {rows}}}\n")
    report = evaluate(
        str(base),
        limits=Limits(tasks=(str(ours),), harness=(str(theirs),)),
        output=tmp_path / "r.json",
        display=Quiet(),
    )
    tasks = report["model"]["tasks"]
    assert tasks["theirs"]["acc"] == tasks["ours"]["accuracy"]
    with pytest.raises(UsageError, match=r"no task 'arc_esay'.*arc_easy"):
        read_harness(["arc_esay"])
