"""A streamed run is the stored run, learns the same when it is broken off, and shows its faults."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.errors import DataError, ResumeError
from qtune.run.data import Choice, preview
from qtune.run.display import Quiet
from qtune.run.resume import BEGIN, Wanted
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.training import StepEvent

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 16, "dropout": 0.2},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"learning_rate": 5e-3},
    "train": {"batch_size": 8, "max_steps": 6},
    "memory": {"micro_batch_size": 3},
    "logging": {"steps": 1},
    "checkpoint": {"steps": 2, "final": "last"},
}
STREAMED = ("data.streaming=true", "data.shuffle_buffer=12")


class Crash(Exception):  # noqa: N818 - no error of anybody's
    """The process is gone."""


class Breaking(Quiet):
    def step(self, event: StepEvent) -> None:
        if event.step == 5:
            raise Crash


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streaming")
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 20)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def run(place: Path, name: str, *overrides: str, **keys: Any) -> dict[str, Any]:
    output = f"train.output_dir={place / name}"
    keys = {"wanted": BEGIN, "display": Quiet()} | keys
    report, code = train(place / "recipe.yaml", overrides=[output, *overrides], **keys)
    assert code == 0
    return report


def adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("packing", ["false", "true"])
def test_without_shuffle_it_learns_what_the_stored_run_learns(place: Path, packing: str) -> None:
    keys = ("data.shuffle=false", f"data.packing={packing}")
    run(place, f"stored {packing}", *keys)
    report = run(place, f"streamed {packing}", *keys, "data.streaming=true")
    assert adapter(place / f"stored {packing}") == adapter(place / f"streamed {packing}")
    assert losses(place / f"stored {packing}") == losses(place / f"streamed {packing}")
    assert report["data"]["train"]["streamed"] is True
    assert report["data"]["eval"]["rows"] == 4


def test_a_crash_changes_nothing_and_other_rows_are_refused(place: Path) -> None:
    run(place, "straight", *STREAMED)
    with pytest.raises(Crash):
        run(place, "broken", *STREAMED, display=Breaking())
    with pytest.raises(ResumeError, match="shuffle_buffer"):
        run(place, "broken", *STREAMED, "data.shuffle_buffer=5", wanted=Wanted(required=True))
    rows = (place / "train.jsonl").read_text()
    write_rows(place / "train.jsonl", 19)
    with pytest.raises(ResumeError, match=r"data\.train"):
        run(place, "broken", *STREAMED, wanted=Wanted(required=True))
    (place / "train.jsonl").write_text(rows)
    run(place, "broken", *STREAMED, wanted=Wanted(required=True))
    assert adapter(place / "broken") == adapter(place / "straight")
    assert losses(place / "broken") == losses(place / "straight")


def test_a_faulty_row_stops_the_run_by_its_line(place: Path) -> None:
    write_rows(place / "faulty.jsonl", 200)
    with (place / "faulty.jsonl").open("a") as stream:
        stream.write('{"prompt": "a", "completion": null}\n')
    keys = (*STREAMED, f"data.train=[{{path: {place / 'faulty.jsonl'}}}]", "train.max_steps=40")
    with pytest.raises(DataError) as caught:
        run(place, "faulty", *keys)
    assert caught.value.faults[0].place.endswith("faulty.jsonl:201")
    assert 0 < len(losses(place / "faulty")) < 26


def test_its_rows_can_be_looked_at(place: Path) -> None:
    shown = preview(place / "recipe.yaml", Choice(2), overrides=STREAMED, display=Quiet())
    assert (shown.total, len(shown.rows)) == (20, 2)
