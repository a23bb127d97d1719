"""`qtune sweep --trials`: what Optuna chooses is run, told to it, and known again after a stop."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from qtune.cli.sweep_command import write
from qtune.errors import ResourceError, ResumeError, UsageError
from qtune.run.comparison.cells import CellError
from qtune.run.sweeping.axes import read_axes
from qtune.run.sweeping.search import value_at
from tests.run.sweeping.pretending import Pretence
from tests.run.sweeping.test_sweep import Lines, sweep

optuna = pytest.importorskip("optuna")
RANGE = ["method.rank=2..64"]


def chosen(recipe: Path) -> list[int]:
    told: dict[str, Any] = json.loads((recipe.parent / "out" / "trials.json").read_text())
    return [trial["method.rank"] for trial in told["trials"]]


def test_the_choices_are_run_ranked_and_known_again(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    report, code = sweep(recipe, RANGE, trials=5)
    first = chosen(recipe)
    assert (code, len(first)) == (0, 5)
    assert all(2 <= rank <= 64 for rank in first)
    ranks = [row["settings"]["method.rank"] for row in report["rows"]]
    assert ranks == sorted(set(first), key=lambda rank: abs(rank - 8))
    pretence.begin(monkeypatch)
    display = Lines()
    sweep(recipe, RANGE, trials=8, display=display)
    assert chosen(recipe)[:5] == first
    new = set(chosen(recipe)[5:]) - set(first)
    assert sorted(pretence.told("begins")) == sorted(f"rank={rank}/seed-42" for rank in new)
    assert new  # a sampler that begins again where it began would choose the first ones
    assert display.lines[-1].rpartition(" of ")[2] == f"{len(set(chosen(recipe)))})"
    write(report)
    with pytest.raises(ResumeError, match="made with --trials 8"):
        sweep(recipe, RANGE, trials=7)
    assert sweep(recipe, RANGE, trials=8)[1] == 0


def test_optuna_is_told_what_came_of_a_choice(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[dict[str, Any], float]] = []

    def tell(_: Any, trial: Any, value: float | None = None, **__: Any) -> None:
        assert value is not None
        told.append((trial.params, value))

    monkeypatch.setattr(optuna.Study, "tell", tell)
    pretence.begin(monkeypatch)
    sweep(recipe, ["method.rank=4,16,32"], trials=4, seeds=2)
    ranks = (4, 16, 32)
    for parameters, value in told:
        assert value == abs(ranks[parameters["method.rank"]] - 8) + 1.0
    assert len(told) == 4
    assert len(pretence.told("ends")) == 2 * len({str(each) for each, _ in told})


def test_a_search_that_was_stopped_goes_on_with_the_same_choice(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch, {"*": 143})
    with pytest.raises(CellError):
        sweep(recipe, RANGE, trials=2)
    [begun] = chosen(recipe)
    pretence.begin(monkeypatch)
    sweep(recipe, RANGE, trials=2)
    assert pretence.told("begins")[0] == f"rank={begun}/seed-42"
    assert len(chosen(recipe)) == 2
    with pytest.raises(ResumeError, match="other values"):
        sweep(recipe, ["method.rank=2..32"], trials=2)


def test_choices_that_all_fail_end_with_their_code(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch, {"*": 6})
    report, code = sweep(recipe, RANGE, trials=2)
    assert (code, report["best"]) == (6, None)


def test_a_choice_that_is_no_recipe_is_told_and_passed_over(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    display = Lines()
    over = ["method.rank=8", "quantization.bits=4..16:6"]  # of which 10 is none
    report, code = sweep(recipe, over, trials=6, display=display)
    assert code == 0
    told = json.loads((recipe.parent / "out" / "trials.json").read_text())["trials"]
    tried = {trial["quantization.bits"] for trial in told}
    assert 10 in tried
    sizes = {row["settings"]["quantization.bits"] for row in report["rows"]}
    assert sizes == tried - {10}
    assert any("bits=10: " in line for line in display.lines)


def test_faults_come_before_anything_runs(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    with pytest.raises(UsageError, match="a range is searched"):
        sweep(recipe, RANGE)
    with pytest.raises(UsageError, match="rank=0"):
        sweep(recipe, ["method.rank=0..8"], trials=2)
    with pytest.raises(ResourceError):
        sweep(recipe, ["memory.budget=1MB,4GB"], trials=2)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError) as missing:
        sweep(recipe, RANGE, trials=2)
    assert missing.value.faults[0].hint == "pip install 'qtune[sweep]'"
    assert pretence.lines() == []


def test_values_are_short_and_within_their_range() -> None:
    real, whole, listed = read_axes(["a=0.00012345..0.1:log", "b=1..9", "c=x,y"])
    assert value_at(real, 0.00123456789) == 0.001235
    assert value_at(real, 0.00012345) == 0.00012345
    assert value_at(whole, 7) == 7
    assert value_at(listed, 1) == "y"
