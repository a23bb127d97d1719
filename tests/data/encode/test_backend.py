"""The Rust tokenizer asked directly gives the ids that transformers gives."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from qtune.data.encode.segment import Segment
from qtune.data.encode.tokens import Tokens
from tests.tiny import tiny_tokenizer

TEXTS = ["", "plain", " a b\n", "typed </s> and <s>", "<pad>", "größer 漢字 🎈", "x" * 300]


@pytest.mark.parametrize("plain", [False, True])
def test_ids_are_those_of_transformers(plain: bool) -> None:
    tokenizer = tiny_tokenizer()
    expected = tokenizer(TEXTS, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=7)
    rows = [[Segment(text, trained=True, plain=plain)] for text in TEXTS]
    assert [ids for (ids,) in Tokens(tokenizer).encode(rows)] == expected


def test_a_tokenizer_with_a_way_of_its_own_is_asked_itself() -> None:
    class Doubling(PreTrainedTokenizerFast):
        def _encode_plus(self, text: Any, *args: Any, **keys: Any) -> Any:
            return super()._encode_plus([one * 2 for one in text], *args, **keys)

    plain = tiny_tokenizer()
    own = Doubling(tokenizer_object=plain.backend_tokenizer, eos_token="</s>")
    (row,) = Tokens(own).encode([[Segment("ab", trained=True)]])
    assert row == [plain("abab", add_special_tokens=False)["input_ids"]]
