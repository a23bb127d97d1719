"""Best-fit packing: every row once, no sequence too long, little space left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from qtune.data.packing import arranged, pack, pack_evenly

REAL = Path(__file__).parents[3] / "shared" / "real"


@pytest.mark.parametrize("way", [pack, pack_evenly])
@pytest.mark.parametrize("seed", range(20))
def test_every_row_once_and_no_sequence_too_long(way: type, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 65, size=int(generator.integers(1, 200))).tolist()
    sequences = way(lengths, 64)
    assert sorted(row for rows in sequences for row in rows) == list(range(len(lengths)))
    assert max(sum(lengths[row] for row in rows) for rows in sequences) <= 64
    assert len(sequences) <= -(-sum(lengths) // 64) * 11 / 9 + 4


def test_it_is_the_best_fit_that_is_taken() -> None:
    # after 7 and 6, the 3 fits both (3 and 4 left) and fills the first exactly
    assert pack([6, 3, 7, 4], 10) == [[2, 1], [0, 3]]


def test_a_straight_line_best_fit_packs_alike() -> None:
    lengths = np.random.default_rng(3).integers(1, 50, size=300).tolist()
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in spaces if space >= length]
        if fitting:
            spaces[spaces.index(min(fitting))] -= length
        else:
            spaces.append(100 - length)
    packed = [100 - sum(lengths[row] for row in rows) for rows in pack(lengths, 100)]
    assert sorted(packed) == sorted(spaces)


def test_even_sequences_waste_less_of_a_rectangle() -> None:
    lengths = [9, 1, 1, 1, 1, 1]
    assert [sum(lengths[row] for row in rows) for rows in pack(lengths, 10)] == [10, 4]
    assert [sum(lengths[row] for row in rows) for rows in pack_evenly(lengths, 10)] == [9, 5]


def shape(lengths: list[int], sequences: list[list[int]]) -> tuple[int, int]:
    """How many sequences, and the longest of them."""
    return len(sequences), max(sum(lengths[row] for row in rows) for rows in sequences)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [1, 3, 8])
def test_arranging_keeps_the_rows_and_the_room(seed: int, most: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 65, size=200).tolist()
    for start in range(0, len(lengths), 25):
        given = pack_evenly(lengths, 64)[start : start + most]
        if not given:
            continue
        found = arranged(lengths, given, most=most, capacity=64)
        rows = sorted(row for one in given for row in one)
        assert sorted(row for one in found for row in one) == rows
        count, longest = shape(lengths, found)
        assert count * longest <= most * 64
        assert count * longest**2 <= most * 64**2
        before = np.prod(shape(lengths, given))
        assert count * longest <= max(before, sum(lengths[row] for row in rows) / 0.98)


def test_short_sequences_are_taken_where_they_are_as_full() -> None:
    lengths = [30, 20, 10, 25, 5, 30]
    given = pack_evenly(lengths, 128)
    assert shape(lengths, given) == (1, 120)
    assert shape(lengths, arranged(lengths, given, most=1, capacity=128)) == (4, 30)
    ragged = [30, 29, 1, 30]  # three sequences of 30 would be as full
    assert shape(ragged, arranged(ragged, [[0, 1, 2, 3]], most=1, capacity=128)) == (3, 30)


def test_a_longer_sequence_is_taken_where_there_is_room_and_short_ones_are_empty() -> None:
    lengths = [60, 40, 40, 40, 40]
    given = pack_evenly(lengths, 64)
    assert shape(lengths, given) == (5, 60)
    assert shape(lengths, arranged(lengths, given, most=5, capacity=64)) == (3, 80)
    assert shape(lengths, arranged(lengths, given, most=16, capacity=64)) == (1, 220)


def _texts(name: str) -> list[str]:
    if name == "gsm8k":
        rows = map(json.loads, (REAL / "data/gsm8k_test.jsonl").read_text().splitlines())
        return [row["question"] + row["answer"] for row in rows]
    if name == "rasbt":
        rows = json.loads((REAL / "data/rasbt_instruction_1100.json").read_text())
        return [row["instruction"] + row["input"] + row["output"] for row in rows]
    rows = map(json.loads, (REAL / "data/oasst_en_100_tree.jsonl").read_text().splitlines())
    return [text for row in rows for text in _branches(row["prompt"], "")]


def _branches(message: dict[str, object], before: str) -> list[str]:
    text = before + str(message["text"])
    replies = message["replies"]
    assert isinstance(replies, list)
    return [one for reply in replies for one in _branches(reply, text)] or [text]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data are not here")
@pytest.mark.parametrize("name", ["rasbt", "gsm8k", "oasst"])
@pytest.mark.parametrize("capacity", [512, 2048])
def test_real_lengths_fill_98_percent_but_for_the_last_sequence(name: str, capacity: int) -> None:
    tokenizer = Tokenizer.from_file(str(REAL / "tokenizers/gpt2/tokenizer.json"))
    lengths = [len(found.ids) for found in tokenizer.encode_batch(_texts(name))]
    lengths = [length for length in lengths if 0 < length <= capacity]
    filled = sorted(sum(lengths[row] for row in rows) for rows in pack(lengths, capacity))
    # the emptiest one holds what is left over at the end
    assert sum(filled[1:]) / (capacity * len(filled[1:])) >= 0.98
