"""Other processes make of each batch what would be made here."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from qtune.data import workers
from qtune.data.checking import check
from qtune.data.encoding import Done, Encoding, Setting, Task, tasks
from qtune.data.faults import Faults
from qtune.recipe.sections import Recipe
from tests.data.building import chat, recipe, write_jsonl
from tests.tiny import tiny_tokenizer

ROWS: list[Any] = [
    chat(("user", f"number {n} é"), ("assistant", "noël " * (n % 9) + f"two {n} </s>"))
    for n in range(30)
]
ROWS[13] = chat(("user", "a \U000f0000 b"), ("assistant", "no"))


def encoding_of(folder: Path) -> tuple[Encoding, list[Task]]:
    path = write_jsonl(folder / "rows.jsonl", ROWS)
    asked: Recipe = recipe(path, max_length=40, overlong="truncate_end")
    faults = Faults()
    checked = check(asked.data.train, faults, on_bad_row="error")
    assert not faults.count
    (whole,) = tasks(checked)
    parts = [Task(0, whole.rows[at : at + 4]) for at in range(0, len(whole.rows), 4)]
    return Encoding(Setting.of(checked, asked, tiny_tokenizer())), parts


def plain(done: list[Done]) -> list[Any]:
    return [
        (one.source, astuple(one.block), one.report.to_notes(), one.faults.first, one.stop_ids)
        for one in done
    ]


@pytest.fixture(autouse=True)
def _always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(workers, "TRIED", 1)
    monkeypatch.setattr(workers, "cores", lambda: 3)


def test_workers_make_the_same_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, parts = encoding_of(tmp_path)
    expected = plain([encoding.done(part) for part in parts])
    assert sum(len(faults) for *_, faults, _ in expected) == 1
    assert any(notes["end_lost"] for _, _, notes, _, _ in expected)
    here: list[Task] = []
    monkeypatch.setattr(Encoding, "done", _noting(here))
    found = list(workers.encoded(encoding, iter(parts), batches=len(parts)))
    assert plain(found) == expected
    assert here == parts[:1]


def test_what_a_worker_that_died_had_is_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, parts = encoding_of(tmp_path)
    expected = plain([encoding.done(part) for part in parts])
    monkeypatch.setattr(workers, "_SERVE", "")
    assert plain(list(workers.encoded(encoding, iter(parts), batches=len(parts)))) == expected


def test_workers_end_when_nobody_wants_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, parts = encoding_of(tmp_path)
    hired: list[workers.Worker] = []
    begin = workers.Worker.__init__

    def noted(worker: workers.Worker) -> None:
        begin(worker)
        hired.append(worker)

    monkeypatch.setattr(workers.Worker, "__init__", noted)
    monkeypatch.setattr(workers, "_SERVE", "import time; time.sleep(60)")
    running = workers.encoded(encoding, iter(parts), batches=len(parts))
    next(running)
    monkeypatch.setattr(workers.Worker, "tell", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert len(hired) == 2
    assert all(worker._process.poll() is not None for worker in hired)


@pytest.mark.parametrize("why", ["little work", "one core", "a tokenizer that cannot be sent"])
def test_without_need_or_means_all_is_made_here(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, parts = encoding_of(tmp_path)
    if why == "little work":
        monkeypatch.setattr(workers, "WORTH_SECONDS", 1e6)
    elif why == "one core":
        monkeypatch.setattr(workers, "cores", lambda: 2)
    else:
        encoding.setting.tokenizer.note = lambda: None
    monkeypatch.setattr(workers, "Worker", None)
    assert len(list(workers.encoded(encoding, iter(parts), batches=len(parts)))) == len(parts)


def _noting(seen: list[Task]) -> Any:
    done = Encoding.done

    def noted(encoding: Encoding, task: Task) -> Done:
        seen.append(task)
        return done(encoding, task)

    return noted


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
