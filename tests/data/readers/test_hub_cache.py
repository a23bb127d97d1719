"""Hub data sets as `datasets` keeps them: read from its cache, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from datasets.packaged_modules.json.json import Json

from qtune.data import prepare
from qtune.errors import DataError
from tests.data.building import read_rows, recipe
from tests.tiny import tiny_tokenizer

ID = Path("someone/something")


@pytest.fixture(autouse=True)
def _stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """57 rows in the cache, as `load_dataset` leaves them there."""
    rows = tmp_path / "rows.jsonl"
    lines = (json.dumps({"prompt": f"p{n}", "completion": f"c{n}"}) for n in range(57))
    rows.write_text("\n".join(lines))
    made = Json(
        cache_dir=str(tmp_path / "made"),
        dataset_name="something",
        data_files={"train": [str(rows)]},
        hash="0123456789abcdef",
    )
    made.download_and_prepare()
    (config,) = (tmp_path / "made" / "something").iterdir()
    (tmp_path / "cache" / "someone___something").mkdir(parents=True)
    config.rename(tmp_path / "cache" / "someone___something" / "default")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train[:5%]", range(3)),
        ("train[10:12]", range(10, 12)),
        ("train[90%:]", range(51, 57)),
        ("train[:1]+train[-1:]", (0, 56)),
    ],
)
def test_a_part_of_a_split(split: str, numbers: range) -> None:
    rows, faults = read_rows(ID, split=split)
    assert not faults.count
    assert [row.values["prompt"] for row in rows] == [f"p{n}" for n in numbers]
    assert rows[0].place == f"someone/something[{split}]:1"


@pytest.mark.parametrize(("key", "value"), [("split", "test"), ("config", "en")])
def test_what_is_not_there_is_one_line_with_a_hint(key: str, value: str) -> None:
    with pytest.raises(DataError, match="nor a hub data set that opens") as caught:
        read_rows(ID, **{key: value})
    assert value in str(caught.value)
    assert len(caught.value.faults) == 1


def test_offline_says_nothing_of_the_cache(capfd: pytest.CaptureFixture[str]) -> None:
    read_rows(ID)
    assert capfd.readouterr().err == ""


def test_a_second_start_reads_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(ID, source={"split": "train[:20%]"}, val_size=2)
    first = prepare(asked, tiny_tokenizer())
    assert (len(first.train), len(first.eval or ())) == (9, 2)
    monkeypatch.setattr("qtune.data.source.hub.read", None)
    again = prepare(asked, tiny_tokenizer())
    assert again.train.fingerprint == first.train.fingerprint
    assert again.report.cache.startswith("rows from the cache")
