"""A tokenizer as GGUF carries it: tokens with kinds, scores or merges, ids and switches."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError
from qtune.gguf import pretokenizers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"  # what stands for a space in a vocabulary of SentencePiece
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPECIAL = ("bos", "eos", "pad", "unk")
# Normalisers that llama.cpp has not: they change few texts, which is told.
UNICODE = {"NFC", "NFKC", "NFD", "NFKD", "Precompiled"}


@dataclass(frozen=True)
class Vocabulary:
    """All that llama.cpp has to know to write and read a model's tokens."""

    model: str
    """gpt2: byte-level with merges; llama: SentencePiece's pairs by score; t5: its unigrams."""
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    ids: tuple[tuple[str, int], ...] = ()
    add_bos: bool = False
    add_eos: bool = False
    space_prefix: bool | None = None
    template: str | None = None
    notes: tuple[str, ...] = ()


def vocabulary_of(
    tokenizer: Any, *, size: int, ends: Sequence[int] = (), pre: str | None = None, place: str
) -> Vocabulary:
    """The vocabulary of a fast tokenizer for an embedding of `size` rows; `ends`: further ids that
    end an answer; `pre`: llama.cpp's name of the way it cuts text, where qtune knows none."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    own = content["model"]
    if own["type"] not in ("BPE", "Unigram"):
        raise ModelError(f"llama.cpp has no {own['type']} tokenizer for this family", place=place)
    own.setdefault("ignore_merges", False)
    parts = _byte_level if own["type"] == "BPE" and _is_byte_level(content) else _sentence_piece
    found = parts(content, size, pre, place)
    add_bos, add_eos = _added(tokenizer, place)
    template = tokenizer.chat_template
    notes = _normaliser_notes(content.get("normalizer"), place)
    ids = [(name, getattr(tokenizer, f"{name}_token_id")) for name in _SPECIAL]
    others = [end for end in ends if end != tokenizer.eos_token_id]
    ids += [("eot", others[0])] if others else []
    return Vocabulary(
        **found,
        ids=tuple((name, int(number)) for name, number in ids if number is not None),
        add_bos=add_bos,
        add_eos=add_eos,
        template=template if isinstance(template, str) else None,
        notes=notes,
    )


def describe(writer: Any, vocabulary: Vocabulary) -> None:
    """Tell a `GGUFWriter` the vocabulary."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.kinds))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    for name, number in vocabulary.ids:
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.template is not None:
        writer.add_chat_template(vocabulary.template)


def _byte_level(
    content: Mapping[str, Any], size: int, pre: str | None, place: str
) -> dict[str, Any]:
    own = content["model"]
    if not own["merges"]:
        raise ModelError(
            "the tokenizer has no merges: llama.cpp reads none of bytes alone", place=place
        )
    tokens, kinds = _tokens(own["vocab"], content["added_tokens"], size)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in own["merges"]]
    name = pretokenizers.name_of(content, asked=pre, place=place)
    return {"model": "gpt2", "pre": name, "tokens": tokens, "kinds": kinds, "merges": tuple(merges)}


def _sentence_piece(
    content: Mapping[str, Any], size: int, pre: str | None, place: str
) -> dict[str, Any]:
    """Pairs by score, of a BPE with spaces as marks; or unigrams with the scores they have."""
    own = content["model"]
    unigram = own["type"] == "Unigram"
    vocab = own["vocab"]
    if unigram:
        vocab = {token: number for number, (token, _) in enumerate(own["vocab"])}
    tokens, kinds = _tokens(vocab, content["added_tokens"], size)
    unknown = own.get("unk_id") if unigram else vocab.get(own.get("unk_token"))
    kinds = tuple(
        UNKNOWN if number == unknown else BYTE if _BYTE.fullmatch(token) else kind
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
    )
    if not own.get("byte_fallback") and not unigram:
        raise ModelError(
            "neither a byte-level tokenizer nor one that falls back to bytes", place=place
        )
    scores = dict(map(tuple, own["vocab"])) if unigram else _scores(own["merges"])
    return {
        "model": "t5" if unigram else "llama",
        "pre": pre or "default",
        "tokens": tokens,
        "kinds": kinds,
        "scores": tuple(
            _score(scores, token, kind) for token, kind in zip(tokens, kinds, strict=True)
        ),
        "space_prefix": _space_prefix(content),
    }


def _tokens(
    vocab: Mapping[str, int], added: Sequence[Mapping[str, Any]], size: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Tokens and kinds by id; rows of the embedding that no token has get names of their own."""
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [UNUSED] * size
    for token, number in vocab.items():
        tokens[number], kinds[number] = token, NORMAL
    for entry in added:
        kind = CONTROL if entry["special"] else USER_DEFINED
        tokens[entry["id"]], kinds[entry["id"]] = entry["content"], kind
    return tuple(tokens), tuple(kinds)


def _scores(merges: Sequence[Any]) -> dict[str, float]:
    """Minus the rank of the first merge that makes a token: the pair with the best goes first."""
    scores: dict[str, float] = {}
    for rank, pair in enumerate(merges):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        scores.setdefault(left + right, -float(rank))
    return scores


def _score(scores: Mapping[str, float], token: str, kind: int) -> float:
    """The score of a token; what no merge makes comes last, and what is no text has none."""
    return scores.get(token, -float(len(scores))) if kind == NORMAL else 0.0


def _is_byte_level(content: Mapping[str, Any]) -> bool:
    found = content.get("pre_tokenizer") or {}
    steps = found.get("pretokenizers", [found])
    return any(step.get("type") == "ByteLevel" for step in steps)


def _space_prefix(content: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text."""
    normal = content.get("normalizer") or {}
    before = content.get("pre_tokenizer") or {}
    steps = [*normal.get("normalizers", [normal]), *before.get("pretokenizers", [before])]
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )


def _added(tokenizer: Any, place: str) -> tuple[bool, bool]:
    """Whether a text gets BOS before it and EOS behind it, as the tokenizer really does."""
    text = "a"
    inner = tokenizer(text, add_special_tokens=False).input_ids
    whole = tokenizer(text).input_ids
    begins = bool(whole) and whole[0] == tokenizer.bos_token_id and inner[:1] != whole[:1]
    ends = bool(whole) and whole[-1] == tokenizer.eos_token_id and inner[-1:] != whole[-1:]
    expected = [*whole[: int(begins)], *inner, *whole[len(whole) - int(ends) :]]
    if whole != expected:
        raise ModelError(
            "the tokenizer puts more around a text than BOS and EOS, which GGUF cannot say",
            place=place,
        )
    return begins, ends


def _normaliser_notes(found: Mapping[str, Any] | None, place: str) -> tuple[str, ...]:
    """What to tell of the normaliser; `ModelError` for one that changes every other text."""
    notes = []
    for step in (found or {}).get("normalizers", [found] if found else []):
        kind = step["type"]
        if kind in UNICODE:
            notes.append(f"llama.cpp leaves out {kind}: a text that it changes gets other tokens")
        elif kind not in ("Prepend", "Replace"):
            raise ModelError(f"llama.cpp has no normaliser {kind}", place=place)
    return tuple(notes)
