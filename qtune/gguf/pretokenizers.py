"""How a byte-level tokenizer cuts text into words, and the name that llama.cpp has for it.

llama.cpp knows each way by a name and has its expressions in its own code; a file that names the
wrong one gives other tokens without a word of warning. So a name is given only to what is exactly
that way: the expressions, their behaviour, and whether whole words skip the merges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLAG = "--pre-tokenizer"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_OPENING = r"[^\r\n\p{L}\p{N}]?"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_MARKS}|{_SPACES}"
QWEN2 = rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_MARKS}|{_SPACES}"
TEKKEN = (
    rf"{_OPENING}[{_UPPER}]*[{_LOWER}]+|{_OPENING}[{_UPPER}]+[{_LOWER}]*|\p{{N}}|"
    rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)


@dataclass(frozen=True)
class Cut:
    """Expressions, applied one after another; `whole`: a word that is a token skips the merges."""

    expressions: tuple[str, ...]
    whole: bool = False


KNOWN = {
    "gpt-2": Cut((GPT2,)),
    "smollm": Cut((r"\p{N}", GPT2)),
    "llama-bpe": Cut((LLAMA3,), whole=True),
    "dbrx": Cut((LLAMA3,)),
    "qwen2": Cut((QWEN2,)),
    "tekken": Cut((TEKKEN,), whole=True),
}


def name_of(tokenizer: Mapping[str, Any], *, asked: str | None, place: str) -> str:
    """The name of a tokenizer.json's way to cut; `ModelError` when llama.cpp has none for it."""
    cut = _cut_of(tokenizer.get("pre_tokenizer"), whole=bool(tokenizer["model"]["ignore_merges"]))
    found = next((name for name, known in KNOWN.items() if known == cut), None)
    if asked is None and found is None:
        raise ModelError(
            "the tokenizer cuts text in a way that has no name in qtune's table of llama.cpp's",
            place=place,
            hint=f"look it up in llama.cpp and name it with {FLAG}; known: {', '.join(KNOWN)}",
        )
    if asked is not None and found is not None and asked != found:
        raise UsageError(f"the tokenizer cuts text as {found}, not as {asked}", place=FLAG)
    return asked or str(found)


def words(text: str, cut: Cut) -> list[str]:
    """The text in words, as llama.cpp cuts it."""
    from tokenizers import Regex, pre_tokenizers

    pieces = [text]
    for expression in cut.expressions:
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        pieces = [word for piece in pieces for word, _ in split.pre_tokenize_str(piece)]
    return pieces


def _cut_of(found: Mapping[str, Any] | None, *, whole: bool) -> Cut | None:
    """The cut of a tokenizer.json; None for steps that have no expression here."""
    if found is None:
        return None
    steps: Sequence[Mapping[str, Any]] = (
        found["pretokenizers"] if found["type"] == "Sequence" else [found]
    )
    expressions = [_expression(step) for step in steps]
    if None in expressions or not steps or steps[-1]["type"] != "ByteLevel":
        return None
    return Cut(tuple(text for text in expressions if text), whole)


def _expression(step: Mapping[str, Any]) -> str | None:
    """The expression of one step, "" for one that cuts nothing, None for an unknown one."""
    kind = step["type"]
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return GPT2 if step.get("use_regex", True) else ""
    if kind == "Digits" and step.get("individual_digits"):
        return r"\p{N}"
    if kind != "Split" or "Regex" not in step["pattern"]:
        return None
    behaviour = (step["behavior"], bool(step.get("invert")))
    kept = behaviour in (("Isolated", False), ("Removed", True))
    return str(step["pattern"]["Regex"]) if kept else None
