"""Memory that runs out in a run: what is told, what is kept, and how the run goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune import training
from qtune.errors import ResourceError
from qtune.run import history
from qtune.run.resume import Wanted
from qtune.run.train import train
from tests.run.breaking import Breaking, Crash, crash
from tests.run.made_run import write_rows
from tests.tiny import save_tiny
from tests.training.failing import Failing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = 6
SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 8, "alpha": 16, "dropout": 0.2},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "adamw_8bit", "learning_rate": 5e-3},
    "train": {"batch_size": 8, "max_steps": STEPS},
    "memory": {"micro_batch_size": 4},
    "eval": {"steps": 3},
    "checkpoint": {"final": "last"},
}
RESUME = Wanted(required=True)
SHRINK = "memory.on_oom=shrink"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oom")
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 20)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def _run(
    place: Path, name: str, *overrides: str, wanted: Wanted | None = None, display: Any = None
) -> tuple[dict[str, Any], int]:
    output = f"train.output_dir={place / name}"
    return train(
        place / "recipe.yaml",
        overrides=[output, *overrides],
        wanted=wanted or Wanted(),
        display=display or Breaking(crash),
    )


def _failing(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[Any, int], bool], *, backward: bool = False
) -> Failing:
    loss = Failing(fails, backward=backward, chunk_size=1024)
    monkeypatch.setattr("qtune.run.train.losses.make", lambda *_, **__: loss)
    return loss


def _step_three(batch: Any, call: int) -> bool:
    """The second micro-batch of step 3 (8 rows, 4 at a time; the epoch's last step has 4), and
    any other of four rows after it."""
    return call > 5 and batch.input_ids.shape[0] > 2


def _metrics(folder: Path) -> list[Any]:
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in line.items() if k != "tokens_per_second"}
        for line in lines
        if line["kind"] not in ("hardware", "alert")
    ]


def _adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def _state(folder: Path) -> bytes:
    return (folder / f"checkpoints/step-{STEPS:06d}/training.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(place: Path) -> Path:
    _run(place, "straight")
    return place / "straight"


@pytest.fixture(scope="module")
def shrunk(place: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        _failing(patch, _step_three)
        _run(place, "shrunk", SHRINK)
    return place / "shrunk"


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_it_names_what_grew_and_what_helps_and_goes_on_from_the_last_step(
    place: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, backward: bool
) -> None:
    name = f"error {backward}"
    with monkeypatch.context() as patch:
        _failing(patch, lambda _, call: call == 6, backward=backward)
        with pytest.raises(ResourceError) as caught:
            _run(place, name, "checkpoint.steps=null", "eval.steps=null")
    (fault,) = caught.value.faults
    phase = "backward" if backward else "forward"
    assert f"out of memory in the {phase} pass of " in fault.message
    assert "tokens: 3.22 GB more asked for, 23.6 GB held, 1.07 GB free; planned were " in (
        fault.message
    )
    helping = fault.hint.partition(": ")[2].split("; ")
    assert 1 <= len(helping[:-1]) <= 3
    assert all("=" in one and "(saves " in one for one in helping[:-1])
    assert helping[-1] == "then --resume --allow-change memory goes on after step 3"
    assert [path.name for path in (place / name / "checkpoints").iterdir()] == ["step-000003"]
    assert "error: memory: out of memory" in (place / name / "log.txt").read_text()
    _run(place, name, "checkpoint.steps=null", "eval.steps=null", wanted=RESUME)
    assert _adapter(place / name) == _adapter(straight)
    assert _state(place / name) == _state(straight)


def test_shrinking_is_said_loudly(shrunk: Path) -> None:
    report = json.loads((shrunk / "report.json").read_text())
    record = report["shrunk"]
    assert [(one["step"], one["before"], one["micro_batch_size"]) for one in record] == [(3, 4, 2)]
    assert record[0]["where"].startswith("in the forward pass of ")
    events = [line for line in _metrics(shrunk) if line["kind"] == "shrink"]
    assert events == [{"kind": "shrink"} | record[0]]
    log = (shrunk / "log.txt").read_text()
    assert "OUT OF MEMORY in the forward pass of " in log
    assert "micro-batches of 2 rows instead of 4, 4 a step; batch and loss stay" in log
    assert history.show_run(shrunk)["shrunk"] == record


def test_what_shrinks_learns_the_same(shrunk: Path, straight: Path) -> None:
    mine, theirs = (
        [line for line in _metrics(run) if line["kind"] == "train"] for run in (shrunk, straight)
    )
    assert [one["tokens"] for one in mine] == [one["tokens"] for one in theirs]
    assert mine[:3] == theirs[:3]


@pytest.mark.parametrize("step", [4, 5])
@pytest.mark.parametrize("size", ["4", "auto"])
def test_a_crash_after_it_changes_nothing(
    place: Path, shrunk: Path, monkeypatch: pytest.MonkeyPatch, step: int, size: str
) -> None:
    name, settings = f"crash {step} {size}", [SHRINK, f"memory.micro_batch_size={size}"]
    if size == "auto":  # the plan's own choice, as one recipe's
        monkeypatch.setattr("qtune.plan.choices.Planner.micro_batch_sizes", lambda _: [4])
    with monkeypatch.context() as patch:
        _failing(patch, _step_three)
        with pytest.raises(Crash):
            _run(place, name, *settings, display=Breaking(crash, step=step))
    monkeypatch.undo()
    lines = Breaking(crash)
    _run(place, name, *settings, wanted=RESUME, display=lines)
    assert _adapter(place / name) == _adapter(shrunk)
    assert _state(place / name) == _state(shrunk)
    assert _metrics(place / name) == _metrics(shrunk)
    report = json.loads((place / name / "report.json").read_text())
    assert [one["micro_batch_size"] for one in report["shrunk"]] == [2]


@pytest.mark.parametrize("data", ["data.streaming=true", "data.packing=true"])
def test_rows_of_a_stream_and_packed_ones_shrink_and_go_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    settings = (SHRINK, data, "data.max_length=48")
    with monkeypatch.context() as patch:
        patch.setattr("qtune.training.rehearsal.CPU_SHARE", 0.0)
        loss = _failing(patch, lambda batch, call: call > 3 and batch.computed > 96)
        _run(place, f"whole {data}", *settings)
        loss.calls = 0
        with pytest.raises(Crash):
            _run(place, f"crash {data}", *settings, display=Breaking(crash, step=5))
    _run(place, f"crash {data}", *settings, wanted=RESUME)
    assert json.loads((place / f"crash {data}" / "report.json").read_text())["shrunk"]
    assert _adapter(place / f"crash {data}") == _adapter(place / f"whole {data}")
    assert _metrics(place / f"crash {data}") == _metrics(place / f"whole {data}")


def test_another_size_that_is_asked_for_is_taken(
    place: Path, shrunk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _failing(patch, _step_three)
        with pytest.raises(Crash):
            _run(place, "asked", SHRINK, display=Breaking(crash, step=5))
    loss = _failing(monkeypatch, lambda *_: False)
    wanted = Wanted(required=True, changes=("memory.micro_batch_size",))
    _run(place, "asked", SHRINK, "memory.micro_batch_size=1", wanted=wanted)
    assert set(loss.seen) == {1}
    assert _adapter(place / "asked") != _adapter(shrunk)


def test_an_evaluation_that_lacks_memory_is_made_again(
    place: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def measure(*_: Any) -> Any:
        calls.append(1)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("qtune.losses.CausalLoss.per_row", measure)
        with pytest.raises(ResourceError, match=r"in the evaluation of .* eval\.batch_size=2"):
            _run(place, "evaluation", "eval.at_start=false")
    assert calls == [1]
    _run(place, "evaluation", "eval.at_start=false", wanted=RESUME)
    assert _adapter(place / "evaluation") == _adapter(straight)
    found = [line["step"] for line in _metrics(place / "evaluation") if line["kind"] == "eval"]
    assert found == [3, 6]


def test_an_update_that_lacks_memory_saves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = training.step.step_unless, []

    def update(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        real(*arguments)

    monkeypatch.setattr("qtune.training.step.step_unless", update)
    with pytest.raises(ResourceError, match="in the optimizer's update") as caught:
        _run(place, "update", "checkpoint.steps=1", "data.eval=[]", SHRINK)
    assert "memory.micro_batch_size" not in caught.value.faults[0].hint
    assert (place / "update/checkpoints/step-000002").is_dir()
    assert not (place / "update/checkpoints/step-000003").exists()


def test_loading_that_lacks_memory_leaves_no_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("qtune.run.prepare.models.load", load)
    with pytest.raises(ResourceError, match="out of memory while the base was loaded") as caught:
        _run(place, "loading")
    assert "micro_batch" not in caught.value.faults[0].hint
    assert not (place / "loading").exists()


def test_predicted_and_measured_memory_stand_in_the_report(straight: Path) -> None:
    report = json.loads((straight / "report.json").read_text())
    planned = json.loads((straight / "plan.json").read_text())["device_bytes"]
    memory = report["memory"]
    assert memory["predicted_bytes"] == planned
    assert memory["error"] == pytest.approx(memory["measured_peak_bytes"] / planned - 1, abs=1e-4)
    shown = history.show_run(straight)["memory"]
    assert shown == {key: memory[key] for key in shown} | {
        "measured_peak_bytes": memory["measured_peak_bytes"]
    }
    assert " at the peak, " in (straight / "log.txt").read_text()
