"""A text file is a document, unless every line plainly is a row of two columns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qtune.data import prepare
from qtune.data.source import manner
from qtune.recipe.inputs import SourceSection
from tests.data.building import read_rows, recipe
from tests.tiny import tiny_tokenizer

PAIRS = "name : A | food : B || A has B .\n\nname : C||C is there . || once more\n"


def test_lines_of_two_columns_are_rows_of_prompt_and_completion(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("a b || c d\n\n e||f \n")
    rows, faults = read_rows(path)
    assert [(row.number, row.values) for row in rows] == [
        (1, {"prompt": "a b ||", "completion": " c d"}),
        (3, {"prompt": " e||", "completion": "f"}),
    ]
    assert faults.count == 0


@pytest.mark.parametrize("text", ["a || b\n", PAIRS, "a || b\nc\n", "\tx\n\ty\n"])
def test_any_other_text_is_a_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.txt").write_text(text)
    assert [row.values for row in read_rows(tmp_path / "f.txt")[0]] == [{"text": text}]


def test_format_text_keeps_a_document(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("a || b\nc || d\n")
    assert len(read_rows(tmp_path / "f.txt", format="text")[0]) == 1


def test_a_later_line_without_the_delimiter_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("a\tb\n" * 100 + "c\n" + "d\te\tf\n")
    rows, faults = read_rows(tmp_path / "f.txt")
    assert rows[-1].values == {"prompt": "d\t", "completion": "e\tf"}
    assert [fault.place for fault in faults.first] == ["f.txt:101"]


def test_the_report_says_why_lines_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("ab || cd\nef || gh\n")
    [source] = prepare(recipe(path), tiny_tokenizer()).report.train_sources
    assert (source.format, source.used) == ("prompt-completion", 2)
    assert "each of the first lines has one '||', which ends the prompt" in source.why
    named = SourceSection(path=str(path), delimiter="||", column_names=("prompt", "completion"))
    assert manner(named) == ""


def test_a_long_text_comes_in_parts_cut_behind_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["qtune.data.readers.document"], "_LONGEST", 100)
    monkeypatch.setattr(sys.modules["qtune.data.readers.opening"], "_PIECE", 30)
    lines = [f"line {n} é\n" for n in range(1, 60)]
    (tmp_path / "f.txt").write_text("".join(lines), encoding="utf-8")
    rows, _ = read_rows(tmp_path / "f.txt")
    texts = [row.values["text"] for row in rows]
    assert "".join(texts) == "".join(lines)
    assert len(texts) > 4
    assert [text.splitlines()[0] for text in texts] == [f"line {row.number} é" for row in rows]
    assert max(map(len, texts)) < 140
