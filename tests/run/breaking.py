"""Runs that are broken off at one of their events, and what they must leave to be as good as one
that was not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from qtune.run.display import Quiet
from qtune.run.resume import BEGIN, Wanted
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtune.training import EvalEvent, StepEvent

STEPS = 7
SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 64, "alpha": 16, "dropout": 0.2},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "paged_adamw_8bit", "learning_rate": 5e-3, "lr_scheduler_type": "cosine"},
    "train": {"batch_size": 8, "max_steps": STEPS},
    "memory": {"micro_batch_size": 3},
    "logging": {"steps": 3},
    "eval": {"steps": 3},
    "checkpoint": {"steps": 2, "final": "last"},
}
RESUME = Wanted(required=True)


class Crash(Exception):  # noqa: N818 - no error of anybody's
    """The process is gone."""


class Breaking(Quiet):
    """Does something at one of a run's events."""

    def __init__(self, act: Callable[[], None], *, step: int | None = None, what: str = "") -> None:
        self._act, self._step, self._what = act, step, what
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def step(self, event: StepEvent) -> None:
        if event.step == self._step:
            self._act()

    def evaluation(self, event: EvalEvent) -> None:
        if self._what == "evaluated" and event.step == 3:
            self._act()

    def progress(self, what: str, done: int, total: int) -> None:  # noqa: ARG002
        if what == self._what:
            self._act()


def crash() -> None:
    """As sudden as a kill, seen from the files."""
    raise Crash


def run(
    place: Path, name: str, *overrides: str, wanted: Wanted = BEGIN, display: Any = None
) -> tuple[dict[str, Any], int]:
    output = f"train.output_dir={place / name}"
    return train(
        place / "recipe.yaml",
        overrides=[output, *overrides],
        wanted=wanted,
        display=display or Quiet(),
    )


def metrics(folder: Path) -> list[Any]:
    timed = ("tokens_per_second",)
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in line.items() if key not in timed}
        for line in lines
        if line["kind"] not in ("hardware", "alert")  # what the machine did is never the same
    ]


def equal(place: Path, name: str, *, reference: str = "straight") -> None:
    mine, theirs = place / name, place / reference
    for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (mine / file).read_bytes() == (theirs / file).read_bytes(), file
    last = f"checkpoints/step-{STEPS:06d}/training.safetensors"
    assert (mine / last).read_bytes() == (theirs / last).read_bytes()
    assert metrics(mine) == metrics(theirs)
    reports = [json.loads((run / "report.json").read_text()) for run in (mine, theirs)]
    for key in ("steps", "tokens", "supervised_tokens", "loss_first", "loss_last", "evaluations"):
        assert reports[0][key] == reports[1][key], key
    assert reports[0]["best"] == reports[1]["best"]


def straight_run(folder: Path) -> Path:
    """A folder with a base, rows, a recipe and the run "straight", which nothing broke."""
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 20)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    run(folder, "straight")
    return folder
