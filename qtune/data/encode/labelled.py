"""Rows for a classification's head: the text as the tokenizer itself would write it, the number of
the label behind it.

The number is the one thing learnt, so a row counts one; batches take it off the tokens again. A
row's `prompt_length` ends its first text: a second one, where the tokenizer tells the two apart,
begins there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.data.rows import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from qtune.data.faults import Faults
    from qtune.data.report import SourceReport
    from qtune.data.row import Example
    from qtune.recipe.sections import Recipe

DESCRIPTION = "the tokenizer's own marks around the text; the label is for the head"


def labelled(example: Example, numbers: Mapping[str, int], faults: Faults) -> int | None:
    """The number of an example's label; None, and a fault, for one that is no label."""
    name = example.turns[-1].text
    if name not in numbers:
        message = f"the label {name!r} is none of the {len(numbers)}"
        faults.add(message, place=example.place, hint="see model.labels")
    return numbers.get(name)


def with_label(
    example: Example, ids: Sequence[int], label: int, *, first: int, image: str = ""
) -> Encoded:
    """The row of an example; `first` of its ids are its first text, or its image."""
    return Encoded(
        file=example.file,
        number=example.number,
        ids=[*ids, label],
        learnt=[*[False] * len(ids), True],
        prompt_length=first,
        answer=example.turns[-1].text,
        group=example.group,
        part=example.part,
        image=image,
    )


class LabelledEncoder:
    """Encodes texts, pairs and chats with their labels."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
        self._tokenizer: Any = tokenizer
        self._limit = recipe.data.max_length
        self._overlong = recipe.data.overlong
        self._chat = recipe.model.chat_template_kwargs
        self._numbers = {name: number for number, name in enumerate(recipe.model.labels)}
        self.stop_ids: set[int] = set()

    def encode(
        self, examples: Sequence[Example], report: SourceReport, faults: Faults
    ) -> Iterator[Encoded]:
        """The usable rows of some examples; what is wrong with others goes to `faults`."""
        for example in examples:
            label = labelled(example, self._numbers, faults)
            if label is None:
                continue
            ids, first = self._ids(example)
            report.longest_read = max(report.longest_read, len(ids))
            if len(ids) > self._limit:
                if not self._may_cut(example, len(ids), report, faults):
                    continue
                ids, first = self._ids(example, cut=True)
            report.used += 1
            yield with_label(example, ids, label, first=first)

    def _may_cut(self, example: Example, length: int, report: SourceReport, faults: Faults) -> bool:
        if self._overlong == "error":
            message = f"{length} tokens, max_length is {self._limit}"
            hint = "raise data.max_length, or choose overlong: truncate_end"
            faults.add(message, place=example.place, hint=hint)
        elif self._overlong == "drop":
            report.dropped[f"longer than {self._limit:,} tokens"] += 1
        else:
            report.truncated += 1
            return True
        return False

    def _ids(self, example: Example, *, cut: bool = False) -> tuple[list[int], int]:
        """The ids of a row, and how many of them are its first text."""
        settings: dict[str, Any] = {}
        if cut:
            side = "left" if self._overlong == "truncate_prompt" else "right"
            self._tokenizer.truncation_side = side
            settings = {"truncation": "longest_first", "max_length": self._limit}
        texts = [turn.text for turn in example.turns[:-1]]
        if example.turns[0].role in ("text", "pair"):
            settings["split_special_tokens"] = True  # what spells one out is text
        else:
            texts = [self._written(example)]
            settings["add_special_tokens"] = False
        found = self._tokenizer(*texts, verbose=False, **settings)
        ids: list[int] = found["input_ids"]
        kinds: list[int] = found.get("token_type_ids") or []
        return ids, kinds.index(1) if 1 in kinds else len(ids)

    def _written(self, example: Example) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in example.turns[:-1]]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, **self._chat)
        return str(text)
