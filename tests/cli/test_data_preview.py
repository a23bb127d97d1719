"""`qtune data preview`: what is coloured is what the labels say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qtune import recipe as recipes
from qtune.cli.app import run_app
from qtune.cli.colours import row_text
from qtune.data import prepare
from qtune.data.batch import collate
from qtune.run.data import Choice
from qtune.run.data import preview as run_preview
from qtune.run.display import Quiet
from tests.cli.data_recipe import COFFEE, exchange, make_recipe
from tests.tiny import tiny_tokenizer

ROWS = [exchange(number) for number in range(8)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shown_json(recipe: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run_app(["data", "preview", str(recipe), "--json", "-q", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return json.loads(shown.out)


def test_the_coloured_text_is_what_the_labels_of_the_batch_say(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, ROWS)
    tokenizer = tiny_tokenizer()
    rows = prepare(recipes.load(recipe).recipe, tokenizer).train
    preview = run_preview(recipe, Choice(8), display=Quiet())
    assert len(preview.rows) == len(rows) == 8
    for row, encoded in zip(preview.rows, rows, strict=True):
        batch = collate([encoded], pad_id=2)
        labels = batch.labels[0, 1:].tolist()
        expected = tokenizer.decode([label for label in labels if label != -100])
        text = row_text(row, marks=False, ids=False, whole=True)
        console = Console(
            color_system="truecolor", force_terminal=True, no_color=False, width=10**4
        )
        bold = [
            segment.text
            for line in console.render_lines(text, pad=False)
            for segment in line
            if segment.style and segment.style.bold
        ]
        coloured = "".join(bold).replace("⏎", "\n").replace("⇥   ", "\t")
        assert coloured == expected
        assert COFFEE in coloured
        assert coloured.endswith("</s>")
        assert [n for p in row.pieces for n in p.ids] == batch.input_ids[0].tolist()


def test_json_holds_every_token_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(tmp_path, ROWS)
    report = shown_json(recipe, capsys, "--rows", "3,8")
    assert [row["number"] for row in report["rows"]] == [3, 8]
    assert report["training_rows"] == 8
    row = report["rows"][0]
    assert row["place"].endswith("rows.jsonl:3")
    tokenizer = tiny_tokenizer()
    ids = [n for piece in row["pieces"] for n in piece["ids"]]
    assert len(ids) == row["tokens"]
    assert "".join(piece["text"] for piece in row["pieces"]) == tokenizer.decode(ids)
    learnt = [n for piece in row["pieces"] if piece["learnt"] for n in piece["ids"]]
    assert tokenizer.decode(learnt) == f"{COFFEE} 2</s>"
    assert len(learnt) == row["learnt_tokens"]
    # a character of several tokens is one piece
    assert [piece["text"] for piece in row["pieces"] if "☕" in piece["text"]] == ["☕"]
    special = [piece["text"] for piece in row["pieces"] if piece["special"]]
    assert special == ["<s>", "</s>"]


def test_without_colour_marks_stand_around_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(tmp_path, ROWS)
    assert run_app(["data", "preview", str(recipe), "-n", "1", "-q"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "⟦noël ☕ 咖啡⏎\n⇥   two 0</s>⟧" in out
    assert "rows.jsonl:1: " in out
    assert run_app(["data", "preview", str(recipe), "-n", "1", "-q", "--ids"]) == 0
    n_with_id = f"n{tiny_tokenizer().convert_tokens_to_ids('n')!s}".translate(
        str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    )
    assert f"⟦{n_with_id}" in capsys.readouterr().out


def test_rows_are_drawn_by_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(tmp_path, ROWS)

    def drawn(seed: int) -> list[int]:
        report = shown_json(recipe, capsys, "-n", "3", "--seed", str(seed))
        return [row["number"] for row in report["rows"]]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(4)}) > 1


def test_text_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(tmp_path, [exchange(0, "\x1b[31mred\u202egreen\r")])
    assert run_app(["data", "preview", str(recipe), "-q"]) == 0
    assert "⟦␛[31mred⟨U+202E⟩green␍ 0</s>⟧" in capsys.readouterr().out


def test_long_stretches_are_shortened_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(tmp_path, [exchange(0, "a" * 500)], max_length=2000)
    assert run_app(["data", "preview", str(recipe), "-q"]) == 0
    assert re.search(r"a … 383 tokens … a", capsys.readouterr().out)
    assert run_app(["data", "preview", str(recipe), "-q", "--whole"]) == 0
    assert "a" * 500 in capsys.readouterr().out


def test_a_page_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(tmp_path, [exchange(0, "<b>bold & brave</b>")])
    target = tmp_path / "rows.html"
    arguments = ["data", "preview", str(recipe), "--html", str(target)]
    assert run_app(arguments) == 0
    assert capsys.readouterr().out == ""
    page = target.read_text()
    inside = re.sub(r"<[^>]*>", "", page.partition("<body>")[2])
    assert "&lt;b&gt;bold &amp; brave&lt;/b&gt; 0&lt;/s&gt;" in inside
    assert "http" not in page
    assert run_app(arguments) == 7
    assert "exists already" in capsys.readouterr().err
    assert target.read_text() == page


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--rows", "9"], 2, "--rows 9: there are rows 1 to 8"),
        (["--rows", "x"], 2, "such as 3,17"),
        (["--html", "missing/rows.html"], 2, "no such folder"),
        (["--set", "data.max_length=4"], 3, "0 of 8 rows"),
    ],
)
def test_faults_are_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    recipe = make_recipe(tmp_path, ROWS)
    monkeypatch.chdir(tmp_path)
    assert run_app(["data", "preview", str(recipe), "-q", *arguments]) == code
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
