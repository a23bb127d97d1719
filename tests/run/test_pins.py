"""recipe.lock.yaml repeats its run, and refuses what is not the same any more."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qtune import recipe
from qtune.errors import DataError, ModelError, QtuneError
from qtune.run.display import Quiet
from qtune.run.train import train
from tests.run.made_run import make_run, write_rows
from tests.tiny import save_tiny, tiny_llama


class Lines(Quiet):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, data, and the folder `first` of a run that was trained."""
    folder = tmp_path_factory.mktemp("pins")
    shutil.rmtree(make_run(folder))
    (folder / "rows").mkdir()
    write_rows(folder / "rows" / "a.jsonl", 6)
    write_rows(folder / "rows" / "b.jsonl", 6, first=50)
    settings: dict[str, Any] = {
        "model": {"name_or_path": "base"},
        "quantization": {"compute_dtype": "float32"},
        "method": {"name": "lora", "rank": 4},
        "data": {
            "train": [{"path": "rows"}, {"path": "train.jsonl"}],
            "eval": [{"path": "test.jsonl"}],
        },
        "train": {"max_steps": 2, "batch_size": 4, "seed": 3},
    }
    (folder / "recipe.yaml").write_text(json.dumps(settings))
    train(folder / "recipe.yaml", overrides=[_output(folder / "first")], display=Quiet())
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to change things in."""
    return shutil.copytree(made, tmp_path / "copy")


def _output(folder: Path) -> str:
    return f"train.output_dir={folder}"


def _repeat(folder: Path, display: Quiet | None = None) -> Path:
    lock = folder / "first" / "recipe.lock.yaml"
    train(lock, overrides=[_output(folder / "second")], display=display or Quiet())
    return folder / "second"


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_pins_files_rows_base_and_versions(made: Path) -> None:
    pins = recipe.load(made / "first" / "recipe.lock.yaml").recipe.pins
    assert pins.data == {
        "train.0/a.jsonl": _sha(made / "rows" / "a.jsonl"),
        "train.0/b.jsonl": _sha(made / "rows" / "b.jsonl"),
        "train.1": _sha(made / "train.jsonl"),
        "eval.0": _sha(made / "test.jsonl"),
    }
    assert pins.rows.keys() == {"train", "eval"}
    report = json.loads((made / "first" / "report.json").read_text())
    assert pins.base == report["base_fingerprint"]
    assert {"qtune", "torch", "transformers"} <= pins.packages.keys()
    assert str(made) not in (made / "first" / "recipe.lock.yaml").read_text()


def test_it_repeats_the_run_bit_for_bit(folder: Path) -> None:
    second = _repeat(folder)
    weights = Path("adapter") / "adapter_model.safetensors"
    assert _sha(second / weights) == _sha(folder / "first" / weights)
    locks = [(folder / name / "recipe.lock.yaml").read_text() for name in ("first", "second")]
    assert locks[0] == locks[1]


def _append_row(folder: Path) -> None:
    with (folder / "rows" / "b.jsonl").open("a") as stream:
        stream.write("\n")


def _another_file(folder: Path) -> None:
    write_rows(folder / "rows" / "c.jsonl", 2)


def _no_file(folder: Path) -> None:
    (folder / "rows" / "a.jsonl").unlink()


def _other_base(folder: Path) -> None:
    shutil.rmtree(folder / "base")
    save_tiny(folder / "base", tiny_llama(seed=9))


def _other_length(folder: Path) -> None:
    lock = folder / "first" / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace("max_length: 2048", "max_length: 24"))


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (_append_row, DataError, "pins.data.train.0/b.jsonl: has changed: sha256 was "),
        (_another_file, DataError, "pins.data.train.0/c.jsonl: was not there"),
        (_no_file, DataError, "pins.data.train.0/a.jsonl: is not there any more"),
        (_other_base, ModelError, "pins.base: has changed"),
        (_other_length, DataError, "pins.rows.train: the encoded rows are others"),
    ],
)
def test_what_has_changed_is_refused(
    folder: Path, change: Any, kind: type[QtuneError], says: str
) -> None:
    change(folder)
    with pytest.raises(kind) as caught:
        _repeat(folder)
    assert str(caught.value.faults[0]).startswith(says)
    assert "which pins nothing" in caught.value.faults[-1].hint
    assert not (folder / "second").exists()


def test_another_version_is_only_said(folder: Path) -> None:
    lock = folder / "first" / "recipe.lock.yaml"
    found = recipe.load(lock).recipe.pins.packages["safetensors"]
    lock.write_text(lock.read_text().replace(f'safetensors: "{found}"', 'safetensors: "0.0.1"'))
    display = Lines()
    _repeat(folder, display)
    [said] = [line for line in display.lines if line.startswith("pins: ")]
    assert said.startswith(f"pins: safetensors was 0.0.1, is {found}")
