"""A run followed from outside: what is told of one that goes on, ends, fails or is killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qtune.errors import UsageError
from qtune.run import watch as watching
from qtune.run.watch import End, OnDisplay, Tail, watch
from qtune.runs import lock, past
from tests.run.pages.made import records, report, train_record, write_run


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.old: list[str] = []
        self.new: list[str] = []

    def record(self, record: Mapping[str, Any], *, old: bool) -> None:
        (self.old if old else self.new).append(f"{record['kind']} {record.get('step')}")

    def line(self, text: str, *, old: bool) -> None:
        (self.old if old else self.new).append(text)


def follow(folder: Path, *acts: Callable[[], None]) -> tuple[Heard, End]:
    """Watch a run that does one thing between two looks, and is gone after the last."""
    heard, left = Heard(), list(acts)

    def sleep(_: float) -> None:
        if left:
            left.pop(0)()

    held = iter([*[True] * len(acts), False])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "is_held", lambda _: next(held, False))
        return heard, watch(folder, heard, sleep=sleep)


def add(path: Path, text: str) -> Callable[[], None]:
    def act() -> None:
        with path.open("a") as stream:
            stream.write(text)

    return act


def test_a_finished_run_is_told_whole_and_ends_with_its_verdict(tmp_path: Path) -> None:
    heard, end = follow(write_run(tmp_path / "run"))
    assert heard.new == []
    assert len(heard.old) == len(records()) + 2
    assert (end.state, end.code, end.step) == ("finished", 9, 60)
    assert end.message == "finished, 1 gate failed"
    kept = write_run(tmp_path / "kept", report_json=report(gates=[]))
    assert follow(kept)[1].code == 0


def test_what_comes_while_it_runs_is_told_once_in_whole_lines(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", report_json=None, metrics_jsonl="", log_txt="")
    line = json.dumps(train_record(1)) + "\n"
    metrics, log = folder / past.METRICS, folder / past.LOG
    heard, end = follow(
        folder,
        add(metrics, line[:20]),
        add(metrics, line[20:]),
        add(log, "step  1/60  loss 6.9\nthe longest batch ran first\nwarning: disk\n"),
        add(log, "stopped after step 1, saved\n"),
    )
    # lines of steps and warnings are those of records
    told = ["train 1", "the longest batch ran first", "stopped after step 1, saved"]
    assert heard.new == told
    assert (end.state, end.message) == ("stopped", "stopped after step 1, saved")


@pytest.mark.parametrize(
    ("log", "summary", "state", "code"),
    [
        ("error: step 3: loss nan\n", "### qtune: x ended with exit code 6\n", "failed", 6),
        ("stopped after step 3\n", "### qtune: x ended with exit code 143\n", "stopped", 143),
        ("step 3/60\n", "", "unfinished", 5),
    ],
)
def test_the_end_has_the_runs_exit_code(
    tmp_path: Path, log: str, summary: str, state: str, code: int
) -> None:
    files = {"report_json": None, "log_txt": log, "summary_md": summary}
    end = follow(write_run(tmp_path / "run", **files))[1]
    assert (end.state, end.code) == (state, code)
    assert end.to_dict()["exit_code"] == code


def test_a_process_that_died_without_a_word_is_told(tmp_path: Path) -> None:
    end = follow(write_run(tmp_path / "run", report_json=None, log_txt="step 3/60\n"))[1]
    assert "gone after step 60 without a word" in end.message
    assert "--resume" in end.message


def test_a_silent_run_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENT_SECONDS", 2.0)
    folder = write_run(tmp_path / "run", report_json=None)
    heard, _ = follow(folder, *[lambda: None] * 12)
    assert heard.new == ["nothing was written for 2 s; the process is there"]


def test_only_a_run_can_be_watched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        watch(tmp_path / "nothing", Heard())
    with pytest.raises(UsageError, match="not a run folder"):
        watch(tmp_path, Heard())


def test_one_that_has_not_written_yet_can_be(tmp_path: Path) -> None:
    with lock.hold(tmp_path):
        watching.require_run(tmp_path)
        assert past.is_held(tmp_path)
    assert not past.is_held(tmp_path)


def test_a_tail_reads_on_after_the_file_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    assert list(tail.lines()) == []
    path.write_text("one\ntwo\nthr")
    assert list(tail.lines()) == ["one", "two"]
    path.write_text("one\n")
    assert list(tail.lines()) == []
    path.write_text("one\nfour\n")
    assert list(tail.lines()) == ["four"]


class Screen:
    """A display that keeps what it shows."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def line(self, text: str) -> None:
        self.shown.append(text)

    def progress(self, what: str, done: int, total: int) -> None:
        raise AssertionError(what, done, total)

    def step(self, event: Any) -> None:
        self.shown.append((event.step, event.total))

    def evaluation(self, event: Any) -> None:
        self.shown.append(("eval", event.step, event.measures["loss"]))

    def hardware(self, found: Mapping[str, float]) -> None:
        self.shown.append(found["cpu_share"])

    def alert(self, text: str) -> None:
        self.shown.append(text)

    def close(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("brief", [False, True])
def test_a_display_sees_it_as_training_shows_it(brief: bool) -> None:
    screen = Screen()
    shown = OnDisplay(screen, total=lambda: 60, brief=brief)
    for step in (1, 2, 3):
        shown.record(train_record(step), old=True)
    shown.record({"kind": "eval", "step": 3, "loss": 2.0}, old=True)
    shown.line("read", old=True)
    shown.record({"kind": "hardware", "step": 3, "cpu_share": 0.5}, old=False)
    shown.record({"kind": "alert", "step": 3, "name": "disk", "message": "disk"}, old=False)
    shown.record({"kind": "train", "step": "torn"}, old=False)
    shown.record(train_record(4), old=False)
    shown.close()
    steps = [(3, 60)] if brief else [(1, 60), (2, 60), (3, 60)]
    lines = [] if brief else ["read"]
    assert screen.shown == [*steps, ("eval", 3, 2.0), *lines, 0.5, "disk", (4, 60)]
