"""Where pages are written, and that making them ends no run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from qtune.run.pages import write
from qtune.run.pages.run_page import run_page
from tests.run.pages.made import write_run


class Stop(BaseException):
    """As a signal ends a block."""


@pytest.mark.parametrize("error", [None, ValueError("bad"), Stop()])
def test_a_block_leaves_the_page_however_it_ends(
    tmp_path: Path, error: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "run_page", run_page)
    folder = write_run(tmp_path / "run", log_txt="error: step 3: loss nan\n", report_json=None)
    said: list[str] = []
    ends: Any = nullcontext() if error is None else pytest.raises(type(error))
    with ends, write.leaving_page(folder, said.append):
        if error is not None:
            raise error
    assert said == []
    assert "loss nan" in (folder / "report.html").read_text()


def test_a_page_that_cannot_be_made_is_said_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> str:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(write, "run_page", broken)
    said: list[str] = []
    with write.leaving_page(write_run(tmp_path / "run"), said.append):
        pass
    assert said == ["report.html could not be made: RuntimeError: no fonts"]
    with write.leaving_page(tmp_path / "gone" / "away", said.append):
        pass
    assert len(said) == 2
