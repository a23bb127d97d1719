"""Examples to encoded rows: written, tokenised in batches, checked, fitted to max_length."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from qtune.data.encode.choice import learnt_turns
from qtune.data.encode.fit import Fitter
from qtune.data.pieces import special_ids
from qtune.data.rows import Encoded
from qtune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qtune.data.encode.layouts import Layout
    from qtune.data.encode.segment import WrittenRow
    from qtune.data.encode.tokens import Tokens
    from qtune.data.faults import Faults
    from qtune.data.report import SourceReport
    from qtune.data.row import Example
    from qtune.recipe.inputs import DataSection


class Encoder:
    """Encodes the rows of one source and counts what becomes of them."""

    def __init__(
        self, tokens: Tokens, layout: Layout, data: DataSection, *, train_on: str, cut: bool
    ) -> None:
        self._tokens = tokens
        self._layout = layout
        begin = tokens.bos if tokens.adds_bos else None
        self._fitter = Fitter(data, begin=begin, documents=cut)
        self._train_on = train_on
        self._cut = cut
        self._ends = special_ids(tokens.tokenizer)
        self.stop_ids: set[int] = set()

    def encode(
        self, examples: Sequence[Example], report: SourceReport, faults: Faults
    ) -> Iterator[Encoded]:
        """The usable rows of some examples; what is wrong with others goes to `faults`."""
        written: list[tuple[Example, WrittenRow]] = []
        for example in examples:
            try:
                rows = self._layout.write(learnt_turns(example, self._train_on))
                written += [(example, row) for row in rows]
            except DataError as error:
                faults.add_error(error, place=example.place)
        segments = [text.segments for _, text in written]
        for (example, text), ids in zip(written, self._tokens.encode(segments), strict=True):
            if self._train_on != "all" and not any(one.trained for one in text.segments):
                report.nothing_marked(example.place)
                continue
            report.typed_rows += text.typed > 0
            report.unrolled += text.unrolled
            report.ended += text.ended
            report.unthought += text.unthought
            report.scaffold = report.scaffold or text.scaffold
            row = self._row(example, text, ids)
            if self._twice_begun(row):
                message = f"{self._tokens.bos_text} stands twice at the beginning"
                faults.add(message, place=example.place, hint="the chat template writes two")
                continue
            for piece in self._fitter.fit(row, report, faults):
                if any(piece.learnt):
                    report.used += 1
                    yield piece
                else:
                    report.nothing_learnt(example.place)

    def _row(self, example: Example, text: WrittenRow, ids: list[list[int]]) -> Encoded:
        """One row of all segments; nothing predicts the first token, so it is never learnt."""
        flat = list(chain.from_iterable(ids))
        learnt: list[bool] = []
        prompt: int | None = None
        stop: int | None = None
        before = False
        for segment, own in zip(text.segments, ids, strict=True):
            if segment.trained and not before:
                prompt = len(learnt)
            before = segment.trained
            stop = own[-1] if segment.trained and own else stop
            learnt += [segment.trained or self._train_on == "all"] * len(own)
        if stop in self._ends:
            self.stop_ids.add(stop)
        bos = self._tokens.bos
        if bos is not None and self._tokens.adds_bos and flat[:1] != [bos] and not text.whole:
            flat, learnt = [bos, *flat], [False, *learnt]
            prompt = None if prompt is None else prompt + 1
        return Encoded(
            file=example.file,
            number=example.number,
            ids=flat,
            learnt=[False, *learnt[1:]],
            prompt_length=None if self._cut else prompt,
            answer=text.answer or example.answer,
            group=example.group,
            part=example.part,
        )

    def _twice_begun(self, row: Encoded) -> bool:
        bos = self._tokens.bos
        return bos is not None and row.ids[:2] == [bos, bos]
