"""`qtune sweep`: the grid told beforehand, the queue, what is kept, and the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qtune.cli.app import run_app
from qtune.cli.sweep_command import write
from qtune.errors import OutputError, QtuneError, ResourceError, ResumeError, UsageError
from qtune.run.comparison import children
from qtune.run.comparison.cells import CellError
from qtune.run.comparison.children import Outcome
from qtune.run.display import Quiet
from qtune.run.sweeping import grid, queue
from qtune.run.sweeping import sweep as sweeping
from qtune.run.sweeping.axes import read_axes
from tests.run.sweeping.pretending import Pretence
from tests.run.test_comparison import here, make_recipe

RANKS = ["method.rank=4,8,16"]


class Lines(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[tuple[str, int, int]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, what: str, done: int, total: int) -> None:
        self.bars.append((what, done, total))


class InProcess:
    """A crew whose work is done here, in its turn."""

    children: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self.begun: list[tuple[Any, Outcome]] = []

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, command: list[str], *_: object) -> Any:
        child = type("Child", (), {"done": 0, "total": 0})()
        self.begun.append((child, here(command[len(children.QTUNE) : -1])))
        return child

    def next_ended(self, _: object) -> tuple[Any, Outcome]:
        return self.begun.pop(0)


def sweep(path: Path, over: list[str] = RANKS, **options: Any) -> tuple[dict[str, Any], int]:
    extent = sweeping.Extent(options.pop("seeds", 1), options.pop("trials", None))
    options = {"output": path.parent / "out", "display": Quiet()} | options
    return sweeping.sweep(path, over, extent=extent, **options)


def test_real_runs_are_ranked_by_the_metric(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(queue, "Crew", InProcess)
    folder = recipe.parent / "out"
    words = ["--over", "optim.learning_rate=1e-6,2e-2", "-o", str(folder), "--json"]
    assert run_app(["sweep", str(recipe), *words]) == 0
    report = json.loads(capfd.readouterr().out)
    assert [row["settings"] for row in report["rows"]] == [
        {"optim.learning_rate": 2e-2},
        {"optim.learning_rate": 1e-6},
    ]
    for row in report["rows"]:
        told = json.loads((folder / "cells" / row["name"] / "seed-42/report.json").read_text())
        [result] = [one for one in told["evaluations"] if one["step"] == told["adapter_step"]]
        assert row["accuracy"]["loss"]["mean"] == result["loss"]
    assert report["best"]["loss"] == report["rows"][0]["accuracy"]["loss"]["mean"]
    assert (folder / report["best"]["run"] / "adapter").is_dir()
    assert json.loads((folder / "sweep.json").read_text()) == {
        key: value for key, value in report.items() if key != "folder"
    }
    assert "<svg" in (folder / "sweep.svg").read_text()
    told = (folder / "sweep.md").read_text()
    assert "| 1 | 0.02 |" in told
    assert "--set optim.learning_rate=0.02" in told
    assert run_app(["sweep", str(recipe), *words[:-1], "-q"]) == 0  # nothing is left to run
    shown = capfd.readouterr().out
    assert shown.index("0.02 ") < shown.index("1e-06")
    assert f"its run: {folder / report['best']['run']}" in shown


def test_every_faulty_combination_is_told_before_anything_runs(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    with pytest.raises(UsageError) as refused:
        sweep(recipe, ["method.rank=8,-1", "optim.learning_rate=x,1e-3"])
    places = [fault.place for fault in refused.value.faults]
    assert places == ["--over optim.learning_rate=x", "--over method.rank=-1"]
    assert "learning_rate=x" in refused.value.faults[0].message
    assert pretence.lines() == []
    assert not (recipe.parent / "out").exists()


def test_what_cannot_fit_is_told_before_anything_runs(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    with pytest.raises(ResourceError, match=r"budget=1MB: needs") as refused:
        sweep(recipe, ["memory.budget=1MB,4GB"])
    assert len(refused.value.faults) == 1
    assert pretence.lines() == []
    assert run_app(["sweep", str(recipe), "--over", "memory.budget=1MB,4GB", "-q"]) == 5


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (["train.seed=1,2"], "--seeds"),
        (["checkpoint.metric=loss,token_f1", "eval.generate_rows=2"], "judged by"),
        (["optim.learnin_rate=1,2"], "learning_rate"),
        (["optim.weight_decay=0,0.0"], "are the same run"),
        (["data.eval=null,null2"], "data.eval"),
    ],
)
def test_what_is_not_varied_is_refused(recipe: Path, over: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(recipe, over)


def test_there_must_be_held_out_rows(tmp_path: Path) -> None:
    path = make_recipe(tmp_path, data={"train": [{"path": "train.jsonl"}]})
    with pytest.raises(UsageError, match="held-out") as refused:
        sweep(path)
    assert len(refused.value.faults) == 1


def test_the_recipe_says_by_what_runs_are_judged(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    metric = ["eval.generate_rows=2", "checkpoint.metric=exact_match"]
    report, _ = sweep(recipe, overrides=metric)
    assert [row["settings"]["method.rank"] for row in report["rows"]] == [16, 8, 4]
    assert (report["metric"], report["better"]) == ("exact_match", "higher")
    assert report["measures"] == ["exact_match", "loss"]
    assert report["best"]["exact_match"] == 0.16


def test_one_run_a_device_at_a_time(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "gpus", lambda: ["GPU-a", "GPU-b"])
    pretence.begin(monkeypatch, together=2)
    _, code = sweep(recipe, seeds=2)
    assert code == 0
    held: dict[str, str] = {}
    for what, name, device, _ in pretence.lines():
        if what == "begins":
            assert device not in held
            held[device] = name
        else:
            assert held.pop(device) == name
    devices = {device for _, _, device, _ in pretence.lines()}
    assert devices == {"GPU-a", "GPU-b"}  # the first two waited for each other
    assert len(set(pretence.told("ends"))) == 6
    assert pretence.told("begins")[0].endswith("seed-42")  # of all rows first


def test_a_finished_sweep_runs_nothing_again_and_takes_more(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    display = Lines()
    first, _ = sweep(recipe, display=display)
    assert [row["settings"]["method.rank"] for row in first["rows"]] == [8, 4, 16]
    assert display.lines[-1].endswith("(3 of 3)")
    assert display.bars[-1][0].startswith("3 of 3: rank=16, about ")
    assert display.bars[-1][1:] == (2 * 2 + 1, 3 * 2)
    pretence.begin(monkeypatch)
    again, _ = sweep(recipe, ["method.rank=8,4,16,9"])
    assert pretence.told("begins") == ["rank=9/seed-42"]
    assert [row["settings"]["method.rank"] for row in again["rows"]] == [8, 9, 4, 16]


def test_a_refusal_is_a_row_of_its_own_and_tried_again(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch, {"rank=8/seed-42": 6})
    display = Lines()
    report, code = sweep(recipe, seeds=2, display=display)
    assert code == 0
    assert "rank=8/seed-43" not in pretence.told("begins")
    assert report["rows"][-1]["reason"] == "key: no (do)"
    assert report["best"]["settings"] == ["method.rank=4"]
    assert display.lines[-1].endswith("(5 of 5)")
    pretence.begin(monkeypatch)
    report, _ = sweep(recipe, seeds=2)
    assert pretence.told("begins") == ["rank=8/seed-42", "rank=8/seed-43"]
    assert report["best"]["settings"] == ["method.rank=8"]
    pretence.begin(monkeypatch, {"*": 6})
    report, code = sweep(recipe, output=recipe.parent / "other")
    assert (code, report["best"]) == (6, None)


def test_faulty_rows_end_all_unless_they_are_varied(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch, {"rank=4/seed-42": 3})
    with pytest.raises(CellError) as stopped:
        sweep(recipe)
    assert stopped.value.code == 3
    assert pretence.told("begins") == ["rank=4/seed-42"]
    pretence.begin(monkeypatch, {"rank=4,max_length=64/seed-42": 3})
    over = ["method.rank=4,8", "data.max_length=64,128"]
    report, code = sweep(recipe, over, output=recipe.parent / "other")
    assert (code, len(pretence.told("ends"))) == (0, 3)
    assert "data differs" in report["notes"][-1]


def test_another_recipe_or_folder_is_refused_before_anything_runs(
    recipe: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretence.begin(monkeypatch)
    sweep(recipe, ["method.rank=16"])
    faulty: list[tuple[type[QtuneError], dict[str, Any]]] = [
        (ResumeError, {"overrides": ["train.max_steps=3"]}),
        (OutputError, {"output": recipe.parent}),
    ]
    pretence.begin(monkeypatch)
    for kind, options in faulty:
        with pytest.raises(kind, match="sweep"):
            sweep(recipe, **options)
    assert pretence.lines() == []


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        (["method.rank=4,8"], {}, "--over method.rank=4,8,16"),
        (["optim.learning_rate=1e-4,1e-3"], {}, "--over method.rank"),
        ([*RANKS, "data.max_length=64,128"], {}, "--over method.rank"),
        (RANKS, {"overrides": ["train.seed=43"]}, "seed-42"),
        (RANKS, {"seeds": 1}, "seed-43"),
    ],
)
def test_a_smaller_or_other_table_takes_the_place_of_none(
    recipe: Path,
    pretence: Pretence,
    monkeypatch: pytest.MonkeyPatch,
    over: list[str],
    options: dict[str, Any],
    message: str,
) -> None:
    pretence.begin(monkeypatch)
    write(sweep(recipe, seeds=2)[0])
    pretence.begin(monkeypatch)
    with pytest.raises(ResumeError, match=f"made with {message}"):
        sweep(recipe, over, **{"seeds": 2} | options)
    assert pretence.lines() == []
    report, _ = sweep(recipe, ["method.rank=4,8,9,16"], seeds=2)
    assert len(report["rows"]) == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_process_and_the_sweep_goes_on(
    recipe: Path,
    pretence: Pretence,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    command = pretence.command({"rank=8/seed-42": "wait", "rank=16/seed-42": "wait"})
    program = (
        "import sys\nfrom qtune.cli.app import run_app\nfrom qtune.run.comparison import children\n"
        f"from qtune.run.sweeping import sweep\nchildren.QTUNE = {command!r}\n"
        "sweep.gpus = lambda: ['0', '1']\n"
        "code = run_app(sys.argv[1:])\nsys.exit(99 if 'torch' in sys.modules else code)"
    )
    words = ["sweep", str(recipe), "--over", RANKS[0], "-o", str(recipe.parent / "out"), "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + 60
        while len(pretence.told("begins")) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        process.send_signal(number)  # as timeout(1) does
        out, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert json.loads(out)["exit_code"] == code
    assert b"1 of 3 runs are finished; the same command goes on" in said
    assert sorted(pretence.told("saved")) == ["rank=16/seed-42", "rank=8/seed-42"]
    for _, _, _, pid in pretence.lines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    pretence.begin(monkeypatch)
    report, ended = sweep(recipe)
    assert ended == 0
    assert pretence.told("begins") == ["rank=8/seed-42", "rank=16/seed-42"]
    assert len(report["rows"]) == 3


def test_the_ends_of_many_ranges_are_checked_one_by_one() -> None:
    few, many = (read_axes([f"k{n}=1..2" for n in range(count)]) for count in (3, 12))
    assert len(grid.ends_of(few)) == 8
    ends = grid.ends_of(many)
    assert len(ends) == 13
    assert {tuple(end.values()).count(2) for end in ends} == {0, 1}


def test_a_run_that_missed_its_gate_is_ranked_and_told(
    recipe: Path,
    pretence: Pretence,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pretence.begin(monkeypatch)
    report, _ = sweep(recipe, ["method.rank=8,9"])
    run = recipe.parent / "out" / report["best"]["run"]
    kept = json.loads((run / "report.json").read_text())
    verdict = {"gate": "max_loss", "limit": 0.5, "actual": 1.0, "unit": "", "passed": False}
    (run / "report.json").write_text(json.dumps(kept | {"gates": [verdict]}))
    words = ["--over", "method.rank=8,9", "-o", str(run.parents[2])]
    assert run_app(["sweep", str(recipe), *words]) == 0
    shown = capfd.readouterr().out
    assert "rank=8: gates failed: 1" in shown
    assert "best: --set method.rank=8" in shown


def test_the_smallest_device_decides(recipe: Path) -> None:
    found = grid.read(recipe, [], [{"method.rank": 8}])
    large, small = (grid.Machine.gpu(size) for size in (24 * 10**9, 10**7))
    assert grid.planned(found, [large])[0].steps == 2
    with pytest.raises(ResourceError):
        grid.planned(found, [large, small])
