"""A profile of chosen steps, and the share of the possible."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from qtune.errors import UsageError
from qtune.run import ceiling
from qtune.run.ceiling import Ceiling, matmul_rate
from qtune.run.display import Quiet, step_line
from qtune.run.train import train
from qtune.training import StepEvent
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8},
    "data": {"train": [{"path": "train.jsonl"}]},
    "optim": {"name": "adamw"},
    "train": {"batch_size": 4, "max_steps": 4, "output_dir": "out"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 8)
    return folder


def _run(base: Path, output: Path, **logging: Any) -> dict[str, Any]:
    recipe = base / f"{output.name}.yaml"
    recipe.write_text(yaml.safe_dump(SETTINGS | {"logging": logging}))
    report, code = train(recipe, overrides=[f"train.output_dir={output}"], display=Quiet())
    assert code == 0
    return report


@pytest.mark.parametrize(("steps", "name"), [([1, 1], "steps-1-1"), ([3, 9], "steps-3-4")])
def test_the_steps_asked_for_are_recorded(
    base: Path, tmp_path: Path, steps: list[int], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    _run(base, output, profile_steps=steps)
    (trace,) = (output / "profile").iterdir()
    assert trace.name == f"{name}.json.gz"
    text = gzip.decompress(trace.read_bytes()).decode()
    names = [event.get("name", "") for event in json.loads(text)["traceEvents"]]
    updates = [name for name in names if name.startswith("Optimizer.step#")]
    assert len(updates) == min(steps[1], 4) - steps[0] + 1  # a run that ends early has fewer
    assert "profiler" not in capfd.readouterr().err
    assert str(tmp_path) not in text
    assert not re.findall(r'"/[^"]*"', text)
    assert f"profile/{name}.json.gz" in (output / "log.txt").read_text()


def test_nothing_is_recorded_that_was_not_asked_for(base: Path, tmp_path: Path) -> None:
    report = _run(base, tmp_path / "out")
    assert not (tmp_path / "out" / "profile").exists()
    assert report["limit_share"] is None  # too small a model to ask
    assert "limit_share" not in (tmp_path / "out" / "metrics.jsonl").read_text()


def test_steps_that_never_come_leave_nothing(base: Path, tmp_path: Path) -> None:
    _run(base, tmp_path / "out", profile_steps=[8, 9])
    assert not (tmp_path / "out" / "profile").exists()


def test_the_last_step_before_the_first_is_a_fault(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="profile_steps"):
        _run(base, tmp_path / "out", profile_steps=[3, 2])


def test_the_share_is_shown_and_reported(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "SMALL", 0)
    monkeypatch.setattr(ceiling, "matmul_rate", lambda *_: 1e9)
    report = _run(base, tmp_path / "out")
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if line["kind"] == "train"]
    assert all(line["limit_share"] > 0 for line in steps)
    assert report["limit_share"] > 0
    assert "of the limit)" in (tmp_path / "out" / "log.txt").read_text()


@dataclass
class _Done:
    tokens: int
    supervised: int
    seconds: float


def test_the_share_is_four_products_a_weight_at_the_measured_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Ceiling(
        weights=30_000_000,
        head_weights=1_000_000,
        inputs=64,
        outputs=128,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    monkeypatch.setattr(ceiling, "matmul_rate", lambda *_: 1e12)
    assert made.share_of(_Done(tokens=1000, supervised=500, seconds=0.2)) == pytest.approx(
        4 * (30e6 * 1000 + 1e6 * 500) / 1e12 / 0.2
    )


def test_the_rate_is_measured_without_touching_the_runs_random_numbers() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert matmul_rate(64, 64, torch.device("cpu"), torch.float32) > 1e6
    assert torch.equal(torch.get_rng_state(), before)


def test_a_line_tells_the_share() -> None:
    event = StepEvent(
        step=1,
        total=2,
        epoch=0.5,
        loss=1.0,
        grad_norm=0.1,
        learning_rate=1e-3,
        tokens=100,
        supervised=50,
        computed=120,
        seconds=0.1,
        limit_share=0.654,
    )
    assert step_line(event).endswith("1,000 tokens/s (65% of the limit)")
