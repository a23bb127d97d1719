from __future__ import annotations

import pytest

from qtune.recipe.lines import delimiter_in, meant


@pytest.mark.parametrize(
    ("lines", "delimiter"),
    [
        (["a || b", "", "c||d"], "||"),
        (["a\tb", "c\td"], "\t"),
        (["a | b || c\td", "e || f"], "||"),
        (["a || b"], None),
        (["a || b", "c"], None),
        (["a || b || c", "d || e"], None),
        (["a || b", "c\td"], None),
        (["\ta", "\tb"], None),
        (["a||", "b||"], None),
        (["a", "b"], None),
        ([], None),
    ],
)
def test_a_table_has_one_delimiter_on_every_line(lines: list[str], delimiter: str | None) -> None:
    assert delimiter_in(lines) == delimiter


def test_only_the_first_hundred_lines_are_looked_at() -> None:
    assert delimiter_in(["a||b"] * 100 + ["c"]) == "||"
    assert delimiter_in(["a||b"] * 99 + ["c"]) is None


def test_a_tab_may_be_spelled() -> None:
    assert (meant(r"\t"), meant("||"), meant(None), meant("")) == ("\t", "||", None, None)
