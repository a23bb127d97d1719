"""qtune export: from a run, a checkpoint or an adapter; whole or not at all, over nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from qtune import methods
from qtune.errors import ModelError, OutputError, UsageError
from qtune.methods import exporting
from qtune.run.export import export
from tests.run.made_run import make_run

if TYPE_CHECKING:
    from pathlib import Path

DYLORA = {"name": "dylora", "rank": 6, "min_rank": 2, "alpha": 8.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"), method=DYLORA)


def test_a_run_its_adapter_and_a_lone_folder_give_the_same(run: Path, tmp_path: Path) -> None:
    reports = [export(str(run), tmp_path / "a"), export(str(run / "adapter"), tmp_path / "b")]
    reports.append(export(str(tmp_path / "a"), tmp_path / "c"))
    for report, name in zip(reports, "abc", strict=True):
        assert report["method"] == "dylora"
        assert report["rank"] == 6
        assert report["for_peft"]
        assert report["numbers"] == sum(
            tensor.numel() for tensor in methods.read(run / "adapter").tensors.values()
        )
        card = (tmp_path / name / "README.md").read_text()
        assert "dylora of rank 6" in card
        for path in {*(tmp_path / name).iterdir()} - {tmp_path / name / "README.md"}:
            assert path.read_bytes() == (run / "adapter" / path.name).read_bytes()
    assert reports[0]["bytes"] == sum(path.stat().st_size for path in (tmp_path / "a").iterdir())


def test_a_rank_of_a_run(run: Path, tmp_path: Path) -> None:
    report = export(str(run), tmp_path / "cut", rank=3)
    assert (report["method"], report["rank"]) == ("lora", 3)
    config = json.loads((tmp_path / "cut" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 8.0)
    with pytest.raises(UsageError, match=r"1 is below method\.min_rank, 2"):
        export(str(run), tmp_path / "less", rank=1)
    assert not (tmp_path / "less").exists()


def test_nothing_is_overwritten_and_nothing_half_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export(str(run), tmp_path / "there")
    with pytest.raises(OutputError, match="inside a folder"):
        export(str(run), run / "adapter" / "inner")

    def torn(adapter: methods.AdapterFile, folder: Path, *, rank: int | None) -> None:
        del rank
        name = "adapter_config.json"
        (folder / name).write_bytes((adapter.folder / name).read_bytes())

    monkeypatch.setattr(exporting, "export", torn)
    with pytest.raises(ModelError):
        export(str(run), tmp_path / "torn")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_holds_no_adapter_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run"):
        export(str(run.parent / "base"), tmp_path / "out")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    with pytest.raises(ModelError, match="no finished adapter"):
        export(str(unfinished), tmp_path / "out")
