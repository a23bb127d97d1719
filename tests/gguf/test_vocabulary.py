"""Tokenizers as GGUF carries them: spelt again from the fields alone, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qtune.errors import CheckError, ModelError, UsageError
from qtune.gguf import pretokenizers, spelling, vocabulary
from tests.gguf import workshop
from tests.tiny import tiny_tokenizer

REAL = Path(__file__).parents[3] / "shared" / "real"
WAYS = [
    ("gpt-2", None, {}),
    ("llama-bpe", pretokenizers.LLAMA3, {"ignore_merges": True}),
    ("dbrx", pretokenizers.LLAMA3, {}),
    ("qwen2", pretokenizers.QWEN2, {}),
    ("tekken", pretokenizers.TEKKEN, {"ignore_merges": True}),
]


def of(tokenizer: Any, **settings: Any) -> vocabulary.Vocabulary:
    return vocabulary.vocabulary_of(tokenizer, size=len(tokenizer), place="model", **settings)


def fields(words: vocabulary.Vocabulary) -> dict[str, Any]:
    told = {
        "model": words.model,
        "pre": words.pre,
        "tokens": list(words.tokens),
        "scores": list(words.scores),
        "merges": list(words.merges),
        "add_space_prefix": bool(words.space_prefix),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in told.items()}


@pytest.mark.parametrize(("name", "pattern", "settings"), WAYS)
def test_a_known_cut_gets_its_name_and_spells_alike(
    name: str, pattern: str | None, settings: dict[str, Any]
) -> None:
    tokenizer = workshop.byte_level(pattern, **settings)
    words = of(tokenizer)
    assert (words.model, words.pre) == ("gpt2", name)
    texts = [*spelling.PROBES, *workshop.TEXTS[:4]]
    assert spelling.check(fields(words), tokenizer, texts) == len(texts)


def test_single_digits_are_smollm() -> None:
    tokenizer = workshop.byte_level()
    steps = [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    words = of(tokenizer)
    assert words.pre == "smollm"
    assert spelling.check(fields(words), tokenizer, spelling.PROBES)


def test_pairs_of_sentence_piece_by_their_scores() -> None:
    tokenizer = workshop.sentence_piece()
    words = of(tokenizer)
    assert (words.model, words.pre, words.space_prefix) == ("llama", "default", True)
    assert words.kinds[:4] == (3, 3, 3, 2)
    assert set(words.kinds[4:260]) == {vocabulary.BYTE}
    texts = [*spelling.PROBES, *workshop.TEXTS[:4]]
    assert spelling.check(fields(words), tokenizer, texts) == len(texts)
    wrong = fields(words) | {"tokenizer.ggml.scores": [-s for s in words.scores]}
    with pytest.raises(CheckError, match="other tokens"):
        spelling.check(wrong, tokenizer, texts)


def test_another_name_for_the_cut_is_found_out() -> None:
    tokenizer = workshop.byte_level(pretokenizers.LLAMA3)
    wrong = fields(of(tokenizer)) | {"tokenizer.ggml.pre": "qwen2"}
    with pytest.raises(CheckError, match="would read"):
        spelling.check(wrong, tokenizer, ["it is 12345 and 1 23, 345"])


def test_an_unknown_cut_is_refused_unless_it_is_named() -> None:
    tokenizer = workshop.byte_level(r"\p{L}+|\s+|[^\p{L}\s]+")
    with pytest.raises(ModelError, match="no name in qtune's table") as caught:
        of(tokenizer)
    assert "--pre-tokenizer" in str(caught.value)
    words = of(tokenizer, pre="my-own")
    assert words.pre == "my-own"
    assert spelling.check(fields(words), tokenizer, spelling.PROBES) == 0
    with pytest.raises(UsageError, match="as gpt-2, not as qwen2"):
        of(workshop.byte_level(), pre="qwen2")


def test_unigrams_keep_their_scores() -> None:
    pieces = [("<unk>", 0.0), ("\u2581", -2.0), ("a", -1.0), ("\u2581a", -0.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    words = of(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
    assert (words.model, words.space_prefix) == ("t5", True)
    assert words.scores == (0.0, -2.0, -1.0, -0.5)
    assert words.kinds[0] == vocabulary.UNKNOWN


def test_bos_and_eos_are_told_as_the_tokenizer_does() -> None:
    from tokenizers.processors import TemplateProcessing

    def around(single: str, specials: list[tuple[str, int]]) -> vocabulary.Vocabulary:
        tokenizer = workshop.byte_level()
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=single, special_tokens=specials
        )
        return of(tokenizer)

    plain = of(workshop.byte_level())
    assert (plain.add_bos, plain.add_eos) == (False, False)
    both = around("<s> $A </s>", [("<s>", 0), ("</s>", 1)])
    assert (both.add_bos, both.add_eos) == (True, True)
    assert (plain.ids, both.ids) == ((("bos", 0), ("eos", 1), ("pad", 2)),) * 2
    with pytest.raises(ModelError, match="more around a text"):
        around("<pad> $A", [("<pad>", 2)])


def test_the_end_of_an_answer_that_is_not_eos_is_told() -> None:
    assert dict(of(workshop.byte_level(), ends=(1, 2)).ids)["eot"] == 2
    assert "eot" not in dict(of(workshop.byte_level(), ends=(1,)).ids)


def test_what_llama_cpp_cannot_read_is_refused() -> None:
    with pytest.raises(ModelError, match="no merges"):
        of(tiny_tokenizer())
    pieces = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(ModelError, match="no WordLevel tokenizer"):
        of(PreTrainedTokenizerFast(tokenizer_object=pieces))
    lower = workshop.byte_level()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match="no normaliser Lowercase"):
        of(lower)
    composed = workshop.byte_level()
    composed.backend_tokenizer.normalizer = normalizers.NFC()
    assert "leaves out NFC" in of(composed).notes[0]


@pytest.mark.parametrize("name", ["model", "tokenizers/gpt2", "tokenizers/minimind"])
def test_real_tokenizers_spell_alike(name: str) -> None:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip("no real tokenizers here")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = of(tokenizer)
    assert words.pre == ("default" if name == "model" else "gpt-2")
    texts = [*spelling.PROBES, "Once upon a time, there was a little girl named Lily.\nShe ran."]
    assert spelling.check(fields(words), tokenizer, texts) == len(texts)
