"""`--dry-run --deep` tells what the longest batch really takes, and leaves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.cli.app import run_app
from qtune.errors import ResourceError
from qtune.run.deep import deep_run
from qtune.run.display import Quiet
from tests.run.made_run import write_rows
from tests.run.test_oom import SETTINGS
from tests.tiny import save_tiny, tiny_llama
from tests.training.failing import Failing

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 48  # tokens of the longest row, 40 with its end token, on the grid of lengths


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    save_tiny(folder / "base", tiny_llama(vocab_size=4096, hidden_size=128, num_hidden_layers=3))
    write_rows(folder / "train.jsonl", 20)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def _deep(place: Path, *overrides: str) -> dict[str, Any]:
    output = f"train.output_dir={place / 'out'}"
    return deep_run(place / "recipe.yaml", overrides=[output, *overrides], display=Quiet())


def test_parts_stand_beside_what_was_planned(place: Path) -> None:
    before = sorted(place.rglob("*"))
    report = _deep(place)
    assert sorted(place.rglob("*")) == before
    parts = {one["part"]: one for one in report["memory"]["parts"]}
    for part in ("the base", "trained parameters", "gradients", "optimizer states"):
        planned, measured = parts[part]["predicted_bytes"], parts[part]["measured_bytes"]
        assert measured == pytest.approx(planned, rel=0.05), part
    assert report["batch"] == {"rows": 4, "length": LONGEST}
    longest = parts["the longest batch"]["predicted_bytes"]
    assert 0 < longest < parts["the longest there may be"]["predicted_bytes"]
    planned = [one for part, one in parts.items() if part != "the longest batch"]
    total = sum(one["predicted_bytes"] for one in planned)
    assert total == report["memory"]["predicted_bytes"] == report["plan"]["device_bytes"]


@pytest.mark.parametrize("backward", [False, True])
def test_too_little_memory_is_found(
    place: Path, monkeypatch: pytest.MonkeyPatch, backward: bool
) -> None:
    failing = Failing(lambda *_: True, backward=backward)
    monkeypatch.setattr("qtune.run.train.losses.make", lambda *_, **__: failing)
    phase = "backward" if backward else "forward"
    with pytest.raises(ResourceError, match=f"{phase} pass of 192 tokens.*what helps") as caught:
        _deep(place)
    assert "resume" not in caught.value.faults[0].hint
    assert failing.seen == [4]
    assert not (place / "out").exists()


def test_more_than_the_budget_is_too_much_even_where_the_system_gives_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qtune.run.deep.peak_bytes", lambda: 10**12)
    with pytest.raises(ResourceError, match=r"took 1\.00 TB, and .* are there"):
        _deep(place)


def test_deep_without_a_dry_run_is_a_misunderstanding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["train", "quickstart", "--deep"]) == 2
    assert "--deep belongs to --dry-run" in capsys.readouterr().err


def test_the_table_is_a_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(place / "recipe.yaml")
    arguments = ["train", recipe, "--dry-run", "--deep", "-o", str(place / "out")]
    assert run_app(arguments) == 0
    shown = capsys.readouterr()
    assert "optimizer states" in shown.out
    assert "the longest batch went through, 4 x 48 tokens, and an update" in shown.err
