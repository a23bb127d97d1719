"""Rows read back from tensors: every token once, whole characters, learnt as the labels say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qtune.data.batch import Batch, collate, learnt_places
from qtune.data.pieces import pieces, visible
from qtune.data.rows import EncodedRow
from tests.tiny import tiny_tokenizer

REAL = Path(__file__).parents[3] / "shared" / "real" / "tokenizers"
ALPHABET = "ab \n\té ☕咖啡👩‍🚀\u202e🇫🇷<s>"


def batch_of(ids: list[int], learnt: list[bool], *, longer: int = 3) -> Batch:
    """The row beside a longer one, so that it is padded."""
    labels = [token if on else -100 for token, on in zip(ids, learnt, strict=True)]
    other = EncodedRow([2] * (len(ids) + longer), [-100] * (len(ids) + longer), "other:1")
    return collate([EncodedRow(ids, labels, "own:1"), other], pad_id=2)


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """Words that begin with ▁, whose decoder drops the first space, as SentencePiece has it."""
    words = ["<unk>", "</s>", "▁", "▁Hello", "▁big", "▁world", "!"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def checked(tokenizer: Any, ids: list[int], learnt: list[bool]) -> None:
    found = pieces(batch_of(ids, learnt), 0, tokenizer)
    assert [n for piece in found for n in piece.ids] == ids
    flags = [piece.learnt for piece in found for _ in piece.ids]
    assert flags == [False, *learnt[1:]]
    assert "".join(piece.text for piece in found) == tokenizer.decode(ids)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["tiny", "gpt2", "minimind"])
def test_pieces_are_the_row(name: str, seed: int) -> None:
    if name == "tiny":
        tokenizer = tiny_tokenizer()
    elif (REAL / name).is_dir():
        tokenizer = AutoTokenizer.from_pretrained(REAL / name)
    else:
        pytest.skip("the real tokenizers are not there")
    draw = random.Random(seed)
    ids: list[int] = []
    learnt: list[bool] = []
    for turn in range(4):
        text = "".join(draw.choices(ALPHABET, k=20))
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += own
        learnt += [turn % 2 == 1] * len(own)
    checked(tokenizer, ids, learnt)


def test_a_character_of_several_tokens_is_one_piece() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("a☕b", add_special_tokens=False)["input_ids"]
    found = pieces(batch_of(ids, [True] * 5), 0, tokenizer)
    assert [(piece.text, len(piece.ids)) for piece in found] == [("a", 1), ("☕", 3), ("b", 1)]


def test_a_space_in_front_of_a_word_is_kept_across_a_border() -> None:
    tokenizer = spaced_tokenizer()
    ids = [3, 4, 5, 6, 1]
    checked(tokenizer, ids, [False, False, True, True, True])
    found = pieces(batch_of(ids, [False, False, True, True, True]), 0, tokenizer)
    assert [piece.text for piece in found] == ["Hello", " big", " world", "!", "</s>"]


def test_what_is_typed_is_not_special() -> None:
    tokenizer = tiny_tokenizer()
    typed = tokenizer("<s>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found = pieces(batch_of([0, *typed, 1], [False] * 5), 0, tokenizer)
    assert [piece.text for piece in found if piece.special] == ["<s>", "</s>"]
    assert "".join(piece.text for piece in found) == "<s><s></s>"


def test_the_first_label_is_never_met_by_the_loss() -> None:
    tokenizer = tiny_tokenizer()
    ids = torch.tensor([[70, 71]])
    batch = Batch(
        ids, torch.ones_like(ids), ids.clone(), learnt_places(ids), tokens=2, places=["a:1"]
    )
    assert [piece.learnt for piece in pieces(batch, 0, tokenizer)] == [False, True]


def test_every_sign_is_visible() -> None:
    assert visible("plain é 咖") == "plain é 咖"
    assert visible("a\nb\tc\r\x1b[0m\x7f") == "a⏎\nb⇥   c␍␛[0m⟨U+007F⟩"
    assert visible("a\u202eb\u200bc\ufeff\xa0") == "a⟨U+202E⟩b⟨U+200B⟩c⟨U+FEFF⟩⟨U+00A0⟩"
    assert visible("👩\u200d🚀") == "👩\u200d🚀"
