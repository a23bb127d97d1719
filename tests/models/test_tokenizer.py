"""Tokenizers that are missing, cut, of another kind or of another model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qtune.errors import ModelError
from qtune.models import load_tokenizer
from qtune.recipe.inputs import ModelSection
from tests.models.workshop import edit_config
from tests.tiny import tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, tokenizer: Path | None = None) -> object:
    name = None if tokenizer is None else str(tokenizer)
    return load_tokenizer(ModelSection(name_or_path=str(folder), tokenizer=name))


def test_it_is_the_one_that_was_saved(whole: Path) -> None:
    tokenizer = load_tokenizer(ModelSection(name_or_path=str(whole)))
    text = "One café, please.\n"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.chat_template == tiny_tokenizer().chat_template


def test_it_may_come_from_another_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "away.json")
    (folder / "tokenizer_config.json").unlink()
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="no tokenizer in this folder") as caught:
        load(folder)
    assert "model.tokenizer" in caught.value.faults[0].hint
    assert load(folder, tmp_path / "other") is not None


def test_a_cut_file_is_named(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        whole = path.read_text()
        half = whole[: len(whole) // 2]
        path.write_text(half)
        with pytest.raises(ModelError, match="not valid JSON") as caught:
            load(folder)
        file, _, line = caught.value.faults[0].place.rpartition(":")
        assert file == str(path)
        assert abs(int(line) - half.count("\n") - 1) <= 1
        path.write_text(whole)


def test_json_that_is_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no usable tokenizer") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_only_a_sentencepiece_file_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(ModelError, match=r"only tokenizer\.model"):
        load(folder)


def test_more_ids_than_rows(folder: Path) -> None:
    edit_config(folder, vocab_size=258)
    with pytest.raises(ModelError, match="ids up to 258, the model's embedding 258 rows"):
        load(folder)
    edit_config(folder, vocab_size=259)
    load(folder)
