"""Runs side by side."""

from __future__ import annotations

from pathlib import Path

from qtune.run.pages.side_page import side_page
from qtune.run.pages.told import tell
from tests.run.pages.made import EVIL, RECIPE, report, write_run
from tests.run.pages.test_run_page import Reader


def test_it_tells_what_differs_and_nothing_else(tmp_path: Path) -> None:
    other = RECIPE.replace("rank: 16 ", "rank: 64 ") + f"train:\n  seed: '{EVIL}'  # x.yaml:9\n"
    fewer = report(gates=[], evaluations=[{"step": 60, "loss": 0.25}])
    runs = [
        write_run(tmp_path / "a" / "run"),
        write_run(tmp_path / "b" / "run", recipe_yaml=other, report_json=fewer),
        write_run(tmp_path / "c", recipe_yaml=None, report_json=None, plan_json="{"),
    ]
    html = side_page([tell(run) for run in runs])
    text = Reader(html).text
    for told in ("a/run", "b/run", "1 gate failed", "method.rank", "64", "0.25", "train.seed"):
        assert told in text, told
    assert "method.name" not in html.split("Recipes, where they differ")[0]
    assert EVIL not in html
    assert "plan.json" in text  # the damage is named
    assert html.count("<svg") == 7


def test_equal_recipes_have_no_key_that_differs(tmp_path: Path) -> None:
    html = side_page([tell(write_run(tmp_path / name)) for name in "ab"])
    assert "no key differs" in html
    assert "method.rank" not in html
