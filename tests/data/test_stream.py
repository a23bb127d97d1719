"""Streamed rows: those of the stored run, learnt without a first pass, resumed exactly."""

from __future__ import annotations

import json
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from qtune.data import Streamed, prepare, prepare_stream
from qtune.data.batch import Batch
from qtune.data.feed import make_feed
from qtune.errors import DataError
from qtune.recipe.sections import Recipe
from qtune.recipe.steps import TrainSection
from tests.data.building import recipe, write_jsonl
from tests.tiny import tiny_tokenizer


def pairs(count: int, letter: str = "x") -> list[dict[str, str]]:
    return [{"prompt": f"{n:04d}", "completion": letter * (1 + n * 7 % 13)} for n in range(count)]


def asked(*paths: Path, steps: int = 10, batch_size: int = 4, **data: Any) -> Recipe:
    made = recipe(*paths, max_length=64, cache_dir=str(paths[0].parent / "cache"), **data)
    train = TrainSection(max_steps=steps, batch_size=batch_size)
    return made.model_copy(update={"train": train})


def streamed(*paths: Path, **keys: Any) -> tuple[Recipe, Streamed]:
    made = asked(*paths, streaming=True, **keys)
    return made, prepare_stream(made, tiny_tokenizer())


def steps(made: Recipe, rows: Any, start: int = 0, micro: int = 2) -> list[list[Batch]]:
    feed = make_feed(made, rows, micro_batch_size=micro, pad_id=2)
    return list(feed.steps(made.train.max_steps or 0, start))


def alike(one: list[list[Batch]], other: list[list[Batch]]) -> bool:
    def same(mine: Any, theirs: Any) -> bool:
        return torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs

    return len(one) == len(other) and all(
        same(getattr(a, name), getattr(b, name))
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
        for name in Batch.__dataclass_fields__
    )


@pytest.mark.parametrize("mix", ["concat", "round_robin"])
@pytest.mark.parametrize("packing", [False, True])
def test_without_shuffle_the_tensors_are_those_of_the_stored_run(
    tmp_path: Path, packing: bool, mix: str
) -> None:
    paths = [
        write_jsonl(tmp_path / "a.jsonl", [*pairs(13), {"prompt": "p", "completion": "y" * 99}]),
        write_jsonl(tmp_path / "b.jsonl", pairs(5, "z")),
    ]
    keys = {"shuffle": False, "packing": packing, "mix": mix}
    made, rows = streamed(*paths, **keys)
    stored = asked(*paths, **keys)
    mine = steps(made, rows.train)
    assert alike(mine, steps(stored, prepare(stored, tiny_tokenizer()).train))
    assert [sum(len(batch.places) for batch in step) for step in mine][:6] == [4, 4, 4, 4, 2, 4]


@pytest.mark.parametrize("buffer", [1, 3, 7, 100])
@pytest.mark.parametrize("packing", [False, True])
def test_a_later_start_is_the_tail_and_every_pass_has_all_rows(
    tmp_path: Path, packing: bool, buffer: int
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(18))
    made, rows = streamed(path, packing=packing, shuffle_buffer=buffer)
    straight = steps(made, rows.train)
    for start in (1, 4, 5, 7, 10):
        assert alike(steps(*streamed_again(made), start), straight[start:])
    passes = [sorted(p for s in straight[n : n + 5] for b in s for p in b.places) for n in (0, 5)]
    assert passes[0] == passes[1] == sorted(f"a.jsonl:{number}" for number in range(1, 19))


@pytest.mark.parametrize("buffer", [3, 7, 100])
def test_rows_are_shuffled_within_the_buffer_and_anew_in_each_pass(
    tmp_path: Path, buffer: int
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(18))
    made, rows = streamed(path, shuffle_buffer=buffer)
    whole = steps(made, rows.train, micro=made.train.batch_size)
    order = [place for (batch,) in whole for place in batch.places]
    numbers = [int(place.rpartition(":")[2]) - 1 for place in order]
    assert [at // buffer for at in numbers[:18]] == [at // buffer for at in range(18)]
    assert sorted(numbers[:18]) == list(range(18))
    assert len({tuple(numbers[:18]), tuple(numbers[18:]), tuple(range(18))}) == 3


def streamed_again(made: Recipe) -> tuple[Recipe, Any]:
    return made, prepare_stream(made, tiny_tokenizer()).train


def test_rows_are_read_only_a_little_ahead(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(5000))
    made, rows = streamed(path, shuffle_buffer=50)
    feed = make_feed(made, rows.train, micro_batch_size=2, pad_id=2)
    running = feed.steps(10)
    list(islice(running, 5))
    assert rows.train.reports[0].read <= 5 * 64 + 64
    running.close()
    assert not [one for one in threading.enumerate() if one.name == "qtune-ahead"]


def test_a_faulty_row_stops_the_run_where_it_stands(tmp_path: Path) -> None:
    good = pairs(300)
    for bad, message in (
        ('{"prompt": "a", "completion": ', "not valid JSON"),
        ('{"prompt": "a", "completion": 7}', "completion: is a number"),
    ):
        path = write_jsonl(tmp_path / "a.jsonl", good)
        path.write_text(path.read_text() + bad + "\n" + json.dumps(good[0]) + "\n")
        made, rows = streamed(path, steps=100, shuffle=False)
        running = make_feed(made, rows.train, micro_batch_size=2, pad_id=2).steps(100)
        learnt = []
        with pytest.raises(DataError, match=message) as caught:
            learnt.extend(running)
        assert caught.value.faults[0].place == "a.jsonl:301"
        assert 55 <= len(learnt) <= 75


def test_faults_of_the_first_rows_come_before_the_run(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "completion": None}])
    second = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "x", "completion": ""}])
    with pytest.raises(DataError) as caught:
        streamed(first, second)
    assert [fault.place for fault in caught.value.faults] == ["a.jsonl:1", "b.jsonl:1"]
    empty = tmp_path / "c.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="no rows"):
        streamed(empty)


def test_rows_that_teach_nothing_end_the_run_instead_of_turning_for_ever(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p" * 99, "completion": "y"}] * 9)
    with pytest.raises(DataError, match="0 of 9 rows keep a learnt token"):
        streamed(path)
    late = write_jsonl(
        tmp_path / "b.jsonl", [*pairs(20), *[{"prompt": "p" * 99, "completion": "y"}]]
    )
    made, rows = streamed(late, overlong="truncate_end")
    with pytest.raises(DataError, match="1 of 21 rows keep no learnt token"):
        steps(made, rows.train)


def test_the_fingerprint_is_that_of_files_and_settings(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(20))
    first = streamed(path)[1].train.fingerprint
    assert streamed(path)[1].train.fingerprint == first
    assert streamed(path, shuffle_buffer=3)[1].train.fingerprint != first
    write_jsonl(path, pairs(20, "w"))
    assert streamed(path)[1].train.fingerprint != first


def test_the_report_and_the_length_of_a_stream(tmp_path: Path) -> None:
    held = write_jsonl(tmp_path / "b.jsonl", pairs(5, "z"))
    path = write_jsonl(tmp_path / "a.jsonl", pairs(20))
    made = asked(path, streaming=True)
    source = made.data.train[0].model_copy(update={"path": str(held)})
    made = made.model_copy(update={"data": made.data.model_copy(update={"eval": (source,)})})
    rows = prepare_stream(made, tiny_tokenizer())
    text = "\n".join(rows.report.lines())
    assert "a.jsonl: streamed; format prompt-completion" in text
    assert "learnt text of a.jsonl:1 in ⟦ ⟧: 0000⟦x</s>⟧" in text
    assert "eval: 5 rows" in text
    assert rows.eval is not None
    assert (len(rows.train), len(rows.eval)) == (40, 5)
    steps(made, rows.train)
    assert json.loads(json.dumps(rows.report.to_dict()))["train"]["sources"][0]["rows_read"] >= 40


def test_a_hub_data_set_is_streamed_alike_and_an_end_of_the_network_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(18))
    made, rows = streamed(path)
    local = steps(made, rows.train)
    asked_for: list[Any] = []

    def load(*_: Any, **keys: Any) -> Any:
        asked_for.append(keys["streaming"])
        return datasets.Dataset.from_list(pairs(18)).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = made.data.train[0].model_copy(update={"path": "someone/something"})
    data = made.data.model_copy(update={"train": (source,)})
    on_hub = made.model_copy(update={"data": data})
    theirs = prepare_stream(on_hub, tiny_tokenizer()).train
    for mine, other in zip(local, steps(on_hub, theirs), strict=True):
        for one, two in zip(mine, other, strict=True):
            assert torch.equal(one.input_ids, two.input_ids)
            assert [p.replace("a.jsonl", "someone/something[train]") for p in one.places] == (
                two.places
            )
    assert all(asked_for)
    assert len(theirs.fingerprint) == 64

    def broken() -> Any:
        yield from pairs(3)
        raise OSError("the connection was reset")

    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(broken)
    )
    with pytest.raises(DataError, match=r"something\[train\]:4: cannot be read on"):
        prepare_stream(on_hub, tiny_tokenizer())
