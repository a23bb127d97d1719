"""Segments to ids, many rows in one call of the tokenizer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from qtune.data.encode.segment import Segment

_GUARD = "\n"


class Tokens:
    """A tokenizer as the encoder sees it: special tokens, begin and end of sequence, batches."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer: Any = tokenizer
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token",
                place=str(tokenizer.name_or_path),
                hint="set eos_token in tokenizer_config.json",
            )
        self.eos: int = tokenizer.eos_token_id
        self.eos_text: str = str(tokenizer.eos_token)
        self.bos: int | None = tokenizer.bos_token_id
        self.bos_text: str = str(tokenizer.bos_token or "")
        self.adds_bos = self.bos is not None and _adds(tokenizer, self.bos)
        self.special = _pattern(tokenizer)
        self._backend = _backend(tokenizer)
        self._guard = self._guard_ids()

    def typed(self, text: str) -> int:
        """How many special tokens are spelt out in a text."""
        return len(self.special.findall(text)) if self.special else 0

    def encode(self, rows: Sequence[Sequence[Segment]]) -> list[list[list[int]]]:
        """The ids of each segment of each row; no special token is added."""
        flat = [(s, number > 0) for row in rows for number, s in enumerate(row)]
        ids: list[list[int]] = [[] for _ in flat]
        for plain in (False, True):
            chosen = [n for n, (s, _) in enumerate(flat) if not s.ids and s.plain is plain]
            texts = [(flat[n][0].text, flat[n][1]) for n in chosen]
            for number, found in zip(chosen, self._batch(texts, plain=plain), strict=True):
                ids[number] = found
        remaining = iter(ids)
        return [[_own(segment, next(remaining)) for segment in row] for row in rows]

    def _batch(self, texts: list[tuple[str, bool]], *, plain: bool) -> list[list[int]]:
        """Ids of texts; a text that continues a row gets no space in front of it."""
        if not self._guard:
            return self._call([text for text, _ in texts], plain=plain)
        guarded = [_GUARD + text if continued else text for text, continued in texts]
        found = self._call(guarded, plain=plain)
        size = len(self._guard)
        for number, (text, continued) in enumerate(texts):
            if continued and found[number][:size] == self._guard:
                found[number] = found[number][size:]
            elif continued:
                found[number] = self._call([text], plain=plain)[0]
        return found

    def _call(self, texts: list[str], *, plain: bool) -> list[list[int]]:
        if not texts:
            return []
        if self._backend is not None:
            self._backend.encode_special_tokens = plain
            fast = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            return [encoding.ids for encoding in fast]
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=plain,
            return_attention_mask=False,
            verbose=False,
        )
        found: list[list[int]] = encoded["input_ids"]
        return found

    def _guard_ids(self) -> list[int]:
        """Ids of a line break in front of continued text, for tokenizers that begin every text
        with a space (SentencePiece's dummy prefix): it takes the space and is cut off again."""
        letter = self._call(["a"], plain=True)[0]
        first = str(self.tokenizer.convert_ids_to_tokens(letter)[0]) if letter else ""
        return self._call([_GUARD], plain=True)[0] if first.startswith(("▁", "Ġ")) else []


def _backend(tokenizer: Any) -> Any:
    """The Rust tokenizer, asked without the offsets that nothing here needs: a third of the time.

    None for a tokenizer that puts something of its own in between.
    """
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(tokenizer)
    own = (
        getattr(kind, "__call__", None) is not PreTrainedTokenizerBase.__call__  # noqa: B004
        or getattr(kind, "_encode_plus", None) is not PreTrainedTokenizerFast._encode_plus
    )
    backend = None if own else tokenizer.backend_tokenizer
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return backend


def _own(segment: Segment, ids: list[int]) -> list[int]:
    return list(segment.ids) or ids


def _adds(tokenizer: Any, bos: int) -> bool:
    """Whether the tokenizer itself puts the begin-of-sequence token in front of a text."""
    return bool(tokenizer("a")["input_ids"][:1] == [bos])


def _pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """What finds a special token in a text, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    words = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
    words.discard("")
    if not words:
        return None
    return re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)))
