"""memory.base: stream changes where the base is, and nothing that a run learns or says."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from qtune.losses import CausalLoss
from qtune.models import copies
from qtune.run.display import Quiet
from qtune.run.eval import evaluate
from qtune.run.resume import Wanted
from qtune.run.subject import load, resolve
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "bfloat16"},
    "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.2},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "adamw", "learning_rate": 1e-2},
    "train": {"batch_size": 4, "max_steps": 4},
    "memory": {"micro_batch_size": 2},
    "eval": {"steps": 2, "generate_rows": 2, "max_new_tokens": 3},
    "checkpoint": {"steps": 2, "final": "last"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streamed")
    save_tiny(folder / "base", tiny_llama(num_hidden_layers=4).bfloat16())
    write_rows(folder / "train.jsonl", 12)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def _run(folder: Path, name: str, *overrides: str, wanted: Wanted | None = None) -> Path:
    output = f"train.output_dir={folder / name}"
    more = {} if wanted is None else {"wanted": wanted}
    _, code = train(folder / "recipe.yaml", overrides=[output, *overrides], display=Quiet(), **more)
    assert code == 0
    return folder / name


def _result(run: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The adapter, and every loss, norm and measure on the way."""
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "loss", "grad_norm", "perplexity", "exact_match", "token_f1")
    told = [{key: event[key] for key in kept if key in event} for event in events]
    assert sum("loss" in event for event in told) >= 4
    return (run / "adapter" / "adapter_model.safetensors").read_bytes(), told


@pytest.fixture(scope="module")
def resident(folder: Path) -> Path:
    return _run(folder, "resident", "memory.base=resident")


def test_a_streamed_run_is_the_resident_one(folder: Path, resident: Path) -> None:
    run = _run(folder, "streamed", "memory.base=stream")
    assert _result(run) == _result(resident)
    assert json.loads((run / "plan.json").read_text())["base"] == "stream"
    log = (run / "log.txt").read_text()
    assert "a base that is streamed is read from a 4-bit copy: making one" in log
    assert "the base is streamed: 4 layers of together" in log
    told = json.loads((run / "report.json").read_text())["streamed"]
    assert told["moves"] > 4 * told["layers"] == 16
    assert told["moved_bytes"] == told["moves"] * told["slot_bytes"] // 2
    assert len(list(copies.home().iterdir())) == 1


def test_a_step_that_lacks_memory_half_way_is_done_again_in_smaller_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = CausalLoss.__call__, []

    def call(self: CausalLoss, model: Any, batch: Any, **keywords: Any) -> Any:
        calls.append(1)
        handle = None
        if len(calls) == 4:  # with a layer in each slot
            handle = model.model.layers[2].mlp.register_forward_pre_hook(refuse)
        try:
            return plain(self, model, batch, **keywords)
        finally:
            if handle is not None:
                handle.remove()

    def refuse(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(CausalLoss, "__call__", call)
    found = []
    for base in ("resident", "stream"):
        calls.clear()
        name = f"shrunk-{base}"
        run = _run(folder, name, f"memory.base={base}", "memory.on_oom=shrink")
        found.append(_result(run))
        shrunk = json.loads((run / "report.json").read_text())["shrunk"]
        assert [(one["step"], one["micro_batch_size"]) for one in shrunk] == [(1, 1)]
    assert found[0] == found[1]


def test_a_run_goes_on_where_the_base_is_held_otherwise(folder: Path, resident: Path) -> None:
    for first, then in (("stream", "resident"), ("resident", "stream")):
        run = _run(folder, f"{first}-first", f"memory.base={first}", "train.max_steps=2")
        changes = ("memory.base", "train.max_steps")
        _run(folder, run.name, f"memory.base={then}", wanted=Wanted(True, changes))
        assert _result(run)[0] == _result(resident)[0]


def test_a_copy_that_is_not_whole_is_made_again(folder: Path, resident: Path) -> None:
    _run(folder, "whole", "memory.base=stream", "train.max_steps=1")
    (copy,) = copies.home().iterdir()
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    run = _run(folder, "again", "memory.base=stream")
    assert _result(run) == _result(resident)
    shutil.rmtree(copy)


def test_a_streamed_run_is_evaluated_streamed_with_the_same_measures(
    folder: Path, resident: Path
) -> None:
    run = folder / "streamed"
    if not run.is_dir():
        _run(folder, run.name, "memory.base=stream")
    loaded = load(resolve(str(run)), device=torch.device("cpu"))
    assert loaded.base.streamed is not None
    reports = [
        evaluate(str(each), str(folder / "test.jsonl"), display=Quiet()) for each in (run, resident)
    ]
    for side in ("adapter", "base"):
        assert reports[0][side]["loss"] == reports[1][side]["loss"]
    assert reports[0]["adapter"]["loss"] != reports[0]["base"]["loss"]
