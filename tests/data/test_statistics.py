"""Numbers over rows, against their plain definitions."""

from __future__ import annotations

import statistics as reference
from pathlib import Path

import numpy as np
import pytest

from qtune.data import statistics
from tests.data.building import encoded
from tests.tiny import tiny_tokenizer

LENGTHS = np.array([3, 3, 10, 11, 40, 41, 55, 60, 61, 90, 160], dtype=np.int64)
LEARNT = LENGTHS // 3


def test_every_row_is_in_the_bar_of_its_length() -> None:
    bars = statistics.histogram(LENGTHS, LEARNT)
    assert [bar.low for bar in bars[1:]] == [bar.high + 1 for bar in bars[:-1]]
    assert bars[0].low == 1
    assert len(bars) <= 16
    for bar in bars:
        inside = [n for n, size in enumerate(LENGTHS) if bar.low <= size <= bar.high]
        assert bar.rows == len(inside)
        assert bar.learnt == sum(LEARNT[inside])
        assert bar.learnt + bar.given == sum(LENGTHS[inside])
    assert sum(bar.rows for bar in bars) == len(LENGTHS)


@pytest.mark.parametrize("longest", [1, 16, 17, 512, 2048, 131_072])
def test_bars_are_few_and_round(longest: int) -> None:
    bars = statistics.histogram(np.array([longest]), np.array([1]))
    width = bars[0].high
    assert len(bars) <= 16
    assert str(width).rstrip("0") in {"1", "2", "5"}


def test_quantiles_are_lengths_of_rows() -> None:
    found = statistics.quantiles(LENGTHS)
    assert found["p50"] == reference.median(LENGTHS.tolist()) == 41
    assert found["p99"] == 160
    assert set(found.values()) <= set(LENGTHS.tolist())


def test_scripts_are_shares_of_letters() -> None:
    found = statistics.scripts(["abcd 12!", "да 咖啡"])
    assert found == {"Latin": 0.5, "Cyrillic": 0.25, "Han": 0.25}
    assert statistics.scripts(["123 !"]) == {}
    assert list(statistics.scripts(["ひらがな カタ 한 αβγ"])) == [
        "Hiragana",
        "Greek",
        "Katakana",
        "Hangul",
    ]


def test_a_sample_is_text(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n % 7}", "completion": "c"} for n in range(10)]
    prepared = encoded(tmp_path, rows)
    texts = statistics.sample(prepared.train, tiny_tokenizer())
    assert len(texts) == 10
    assert texts[1].startswith("p1")
    assert "<s>" not in texts[0]
