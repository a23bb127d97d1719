"""Two processes learn what one learns, however the base is held and whatever the method keeps; and
a run goes on with another number of them."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from qtune.run.display import Quiet
from qtune.run.resume import BEGIN, Wanted
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import save_tiny
from tests.together import together

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ["task.yaml", "said.yaml", "chosen.yaml"]
SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "adamw", "learning_rate": 2e-3},
    "train": {"batch_size": 8, "max_steps": 20},
    "memory": {"micro_batch_size": 2},
    "eval": {"at_start": False, "generate_rows": 3, "max_new_tokens": 4, "tasks": TASKS},
    "checkpoint": {"steps": 6, "final": "last"},
}
ROWS = 17  # the last step of an epoch has one row, so one process has none
FSDP, PACKED = "distributed.strategy=fsdp", "data.packing=true"
PLAIN: dict[str, tuple[str, ...]] = {
    "replicated": (),
    "in-shards": (FSDP,),
    "packed": (PACKED,),
    "packed-in-shards": (PACKED, FSDP),
    "recomputed-in-shards": (FSDP, "memory.activations=layer"),
}
LORA = {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0}
METHODS: dict[str, Any] = {
    "adalora": LORA | {"name": "adalora", "target_rank": 2},
    "dylora": LORA | {"name": "dylora"},
    "delta_lora": {
        "name": "delta_lora",
        "rank": 4,
        "alpha": 8,
        "warmup_steps": 5,
        "delta_ratio": 0.2,
    },
    # a bias of the keys changes no attention: its gradient is rounding, which Adam makes a step of
    "combination": [LORA, {"name": "bitfit", "target_modules": ["v_proj"]}],
    "rosa": LORA | {"name": "rosa", "warmup_steps": 3, "density": 0.05},
}
LESS: dict[str, tuple[str, ...]] = {  # than one process has to do, or can
    "profiled": ("logging.profile_steps=[3,5]",),
    "no-row-for-the-second": ("train.batch_size=1",),
    "no-row-for-the-second-in-shards": ("train.batch_size=1", FSDP),
    "less-memory": ("memory.on_oom=shrink",),
}
EQUAL = [*PLAIN, *LESS, *(name for name in METHODS if name != "rosa")]
DROPOUT = "method.dropout=0.2"
HALF = "train.max_steps=12"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, rows and a recipe."""
    folder = tmp_path_factory.mktemp("processes")
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", ROWS)
    write_rows(folder / "test.jsonl", 5, first=100)
    (folder / "task.yaml").write_text("kind: loss\ndata: {path: test.jsonl}\n")
    (folder / "said.yaml").write_text(
        "kind: generate\ndata: {path: test.jsonl}\nmax_new_tokens: 6\nstop: [the, a]\n"
    )
    (folder / "chosen.yaml").write_text("kind: choices\ndata: {path: choices.jsonl}\n")
    rows = [{"query": f"q{n}", "choices": ["a", "bb", "c"], "gold": n % 3} for n in range(5)]
    (folder / "choices.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name in (*PLAIN, *METHODS):
        method = METHODS.get(name, LORA)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(SETTINGS | {"method": method}))
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> list[dict[str, Any]]:
    """The ends of every run over two processes, in one start, as each of them has them."""
    runs: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = [
        *((f"two-{name}", "replicated", overrides, ()) for name, overrides in PLAIN.items()),
        *((f"two-{name}", "replicated", overrides, ()) for name, overrides in LESS.items()),
        *((f"two-{name}", name, (), ()) for name in METHODS),
        ("two-dropout", "replicated", (DROPOUT,), ()),
        ("two-halves", "replicated", (DROPOUT, HALF), ()),
        ("two-then-one", "replicated", (HALF,), ()),
        ("two-halves", "replicated", (DROPOUT,), ("train.max_steps",)),
    ]
    asked = []
    with ExitStack() as held:
        for name, recipe, overrides, changes in runs:
            port = held.enter_context(socket.socket())
            port.bind(("127.0.0.1", 0))
            output = f"train.output_dir={folder / name}"
            file = str(folder / f"{recipe}.yaml")
            kept = f"data.cache_dir={folder / 'rows'}"
            asked.append((file, [output, kept, *overrides], port.getsockname()[1], changes))
    found = together("tests.run.processes_worker", json.dumps(asked), folder=folder)
    names = [name for name, *_ in runs]
    assert [rank["encodings"] for rank in found] == [2, 0]  # two files, read by one of them
    return [dict(zip(names, rank["runs"], strict=True)) for rank in found]


def _alone(
    folder: Path, name: str, *overrides: str, recipe: str = "replicated", wanted: Wanted = BEGIN
) -> Any:
    settings = [f"train.output_dir={folder / name}", *overrides]
    file = folder / f"{recipe}.yaml"
    report, code = train(file, overrides=settings, display=Quiet(), wanted=wanted)
    assert code == 0
    return report


def _adapter(run: Path) -> dict[str, torch.Tensor]:
    files = sorted((run / "adapter").rglob("adapter_model.safetensors"))  # parts have folders
    return {f"{file.parent.name}/{n}": t for file in files for n, t in load_file(file).items()}


def _predictions(run: Path) -> list[dict[str, Any]]:
    lines = (run / "tasks.predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _far(one: Path, other: Path) -> float:
    ours, theirs = _adapter(one), _adapter(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize("name", EQUAL)
def test_two_learn_what_one_learns(folder: Path, told: list[dict[str, Any]], name: str) -> None:
    alone = [override for override in (PLAIN | LESS).get(name, ()) if override != FSDP]
    recipe = name if name in METHODS else "replicated"
    report = _alone(folder, f"one-{name}", *alone, recipe=recipe)
    for rank in told:
        code, tokens, losses = rank[f"two-{name}"]
        assert (code, tokens) == (0, report["tokens"])
        ours = [report["evaluations"][-1]["loss"], report["tasks"]["adapter"]["task"]["loss"]]
        assert losses == pytest.approx(ours, abs=1e-5)
    assert _far(folder / f"one-{name}", folder / f"two-{name}") < 1e-5
    for ours, theirs in zip(
        *(_predictions(folder / f"{n}-{name}") for n in ("one", "two")), strict=True
    ):
        assert theirs.pop("scores", None) == pytest.approx(ours.pop("scores", None), abs=1e-3)
        assert ours == theirs
    begun = _adapter(folder / f"one-{name}")
    assert max(float(tensor.abs().max()) for tensor in begun.values()) > 1e-2


def test_the_first_records_a_profile_and_says_what_another_lacks(
    folder: Path, told: list[dict[str, Any]]
) -> None:
    assert [rank["two-profiled"][0] for rank in told] == [0, 0]
    assert [file.name for file in (folder / "two-profiled" / "profile").iterdir()] == [
        "steps-3-5.json.gz"
    ]
    lines = (folder / "two-less-memory" / "metrics.jsonl").read_text().splitlines()
    [shrunk] = [one for one in map(json.loads, lines) if one["kind"] == "shrink"]
    assert (shrunk["where"], shrunk["before"], shrunk["micro_batch_size"]) == ("on rank 1", 2, 1)


def test_places_are_one_choice_for_all(folder: Path, told: list[dict[str, Any]]) -> None:
    assert [rank["two-rosa"][0] for rank in told] == [0, 0]  # else the weights would part
    values = [t for n, t in _adapter(folder / "two-rosa").items() if n.endswith("rosa_values")]
    assert values
    assert all(tensor.any() for tensor in values)


def test_resumed_by_as_many_is_the_straight_run(folder: Path, told: list[dict[str, Any]]) -> None:
    assert [rank["two-halves"][0] for rank in told] == [0, 0]
    assert _far(folder / "two-dropout", folder / "two-halves") == 0.0


def test_resumed_by_one_ends_where_the_straight_run_does(
    folder: Path, told: list[dict[str, Any]]
) -> None:
    wanted = Wanted(required=True, changes=("train.max_steps",))
    _alone(folder, "two-then-one", wanted=wanted)
    assert _far(folder / "two-replicated", folder / "two-then-one") < 1e-5
    assert [rank["two-then-one"][0] for rank in told] == [0, 0]


def test_the_metrics_tell_of_every_process(folder: Path, told: list[dict[str, Any]]) -> None:
    assert told
    lines = (folder / "two-replicated" / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "ranks"]
    assert records
    assert all(len(record["joining"]) == len(record["peak_bytes"]) == 2 for record in records)
    assert all(seconds >= 0 for seconds in records[-1]["joining"])
    plan = json.loads((folder / "two-replicated" / "plan.json").read_text())
    assert (plan["processes"], plan["strategy"]) == (2, "ddp")
