"""The page of one run: what it says, from whatever is in the folder."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from qtune.run.pages.run_page import run_page
from qtune.run.pages.told import tell
from tests.run.pages.made import EVIL, report, write_run, write_samples

VOID = {"meta", "br", "img", "link", "input"}


class Reader(HTMLParser):
    """The text outside styles, the tags, and whether every one is closed in its order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("src", "onload"), name
            assert not (name.endswith("href") and not value.startswith("#")), value

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return "\n".join(self.words)


def read(folder: Path) -> Reader:
    return Reader(run_page(tell(folder)))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(tmp_path_factory.mktemp("place") / "run")
    write_samples(folder)
    return run_page(tell(folder))


def test_it_tells_the_result_the_gates_and_the_measures_with_their_intervals(html: str) -> None:
    text = Reader(html).text
    for told in ("orders", "1 gate failed", "6.5 → 0.5", "0 → 0.75", "min_exact_match"):
        assert told in text, told
    for told in ("0.45 to 0.55", "step 60 (adapter)", "memory.activations", "2.50 MB", "1.20 MB"):
        assert told in text, told
    for told in ("--set optim.learning_rate=2e-4", "recipe.yaml:3", "torch", "before training"):
        assert told in text, told


def test_it_draws_learning_evaluation_and_machine(html: str) -> None:
    titles = re.findall(r"<figcaption><b>(.*?)</b>", html)
    assert titles[:2] == ["Loss", "Held-out measures"]
    assert set(titles[2:]) == {
        *("Learning rate", "Gradient norm", "Tokens per second"),
        *("Use", "Memory", "Power", "Temperature"),
    }
    assert html.count("<svg") == len(titles)


def test_nothing_of_the_data_becomes_markup(html: str) -> None:
    assert EVIL not in html
    assert "script" not in Reader(html).tags
    # a doubt, an alert, a reason, two prompts and their answers before
    assert html.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;") >= 6


def test_it_needs_no_other_file_and_is_light(html: str) -> None:
    addresses = set(re.findall(r"https?://[^\"' )<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in html
    assert "url(" not in html.replace("url(#p", "")
    assert len(html) < 150_000


def test_the_ids_of_its_pictures_differ(html: str) -> None:
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_every_colour_is_the_pages(html: str) -> None:
    pictures = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert not re.search(r"#[0-9a-f]{6}", pictures)
    used = set(re.findall(r"var\((--\w+)\)", html))
    light, dark = re.findall(r":root \{(.*?)\}", html, re.S)[:2]
    for sheet in (light, dark):
        assert used - {"--k"} <= set(re.findall(r"(--[\w-]+):", sheet)) | {"--c6"}


@pytest.mark.parametrize("missing", ["recipe_yaml", "plan_json", "env_json", "report_json"])
def test_a_folder_without_a_file_has_a_page(tmp_path: Path, missing: str) -> None:
    folder = write_run(tmp_path / "run", **{missing: None})
    assert "Loss" in read(folder).text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report_json", "{"),
        ("report_json", {"evaluations": 3, "gates": [{"gate": 1}], "memory": "much", "doubts": 1}),
        ("plan_json", {"memory": [1], "decisions": {}, "machine": 5, "steps": []}),
        ("metrics_jsonl", 'nothing\n{"kind": "train", "step": "x"}\n{"kind": "eval", "step": 1}\n'),
        ("recipe_yaml", "- a\n: :\n\x00 # # #\n"),
        ("env_json", [1, 2]),
    ],
)
def test_damage_is_left_out_or_named(tmp_path: Path, name: str, content: Any) -> None:
    folder = write_run(tmp_path / "run", **{name: content})
    assert "qtune report" in read(folder).text


def test_an_interrupted_run_tells_how_far_it_came_and_why(tmp_path: Path) -> None:
    log = "plan: fits\nstopped after step 60, saved in run/checkpoints; go on with --resume\n"
    text = read(write_run(tmp_path / "run", report_json=None, log_txt=log)).text
    assert "stopped, can go on" in text
    assert "stopped after step 60" in text
    log = "error: step 61: loss nan, gradient norm nan; no update was made\n"
    text = read(write_run(tmp_path / "other", report_json=None, log_txt=log)).text
    assert "failed" in text
    assert "loss nan" in text


def test_what_eval_measured_stands_with_its_sides_and_intervals(tmp_path: Path) -> None:
    sides = {"loss": 1.5, "loss_low": 1.25, "loss_high": 1.75, "answers": {"exact_match": 0.125}}
    measured = {"thing": "run", "rows": 3, "base": {"loss": 6.25}, "adapter": sides}
    folder = write_run(tmp_path / "run", eval_json=measured)
    text = read(folder).text
    for told in ("eval.json", "base", "adapter", "6.25", "1.25 to 1.75", "0.125"):
        assert told in text, told


def test_an_older_report_without_parts_shows_those_of_the_plan(tmp_path: Path) -> None:
    older = report(memory={"predicted_bytes": 2 * 10**6, "measured_peak_bytes": 3 * 10**6})
    text = read(write_run(tmp_path / "run", report_json=older)).text
    assert "NF4 weights" in text
    assert "3.00 MB" in text


def test_each_process_is_told_of_and_of_one_alone_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "process 0" not in read(run).text
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ranks", "step": 9, "joining": [1, 2], "peak_bytes": [1, 2]}\n')
        file.write('{"kind": "ranks", "step": 10, "joining": [3, 65], "peak_bytes": [2e9, 1e9]}\n')
    told = read(run).text
    assert "process 0" in told
    assert "process 1" in told
    assert "process 2" not in told
    assert "2.00 GB" in told
    assert "1 min 05 s" in told
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ranks", "step": 11, "joining": "x", "peak_bytes": [1, "y"]}\n')
    assert "process 0" not in read(run).text
