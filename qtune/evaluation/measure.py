"""The measures of a recipe's eval section, as training takes them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtune.data.batch import filler_id
from qtune.evaluation.answers import answer, answerable, means, score
from qtune.evaluation.likelihood import measure_loss
from qtune.evaluation.sharing import BY_ONE, Together

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.data import Rows
    from qtune.evaluation.answers import Answer
    from qtune.losses import CausalLoss
    from qtune.recipe.results import EvalSection

    Progress = Callable[[str, int, int], None]
    Details = Callable[[dict[str, Any], list[Answer]], None]


def evaluate(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    section: EvalSection,
    *,
    loss: CausalLoss,
    on_progress: Progress | None = None,
    on_details: Details | None = None,
    together: Together = BY_ONE,
) -> dict[str, float]:
    """Loss and perplexity of all rows, and the scores of `generate_rows` answers, by name, of a
    section that says its batch size; `on_details` gets the ends of their intervals, NAME_low and
    NAME_high, and the answers."""
    device = next(model.parameters()).device
    batch_size = section.batch_size
    assert batch_size is not None, "the caller knows the size of a batch"
    measured = measure_loss(
        model,
        rows,
        loss=loss,
        batch_size=batch_size,
        pad_id=filler_id(tokenizer),
        device=device,
        on_progress=partial(on_progress, "evaluating") if on_progress else None,
        together=together,
    )
    figures = {"loss": measured.loss, "perplexity": measured.perplexity}
    answers: list[Answer] = []
    chosen = answerable(rows, section.generate_rows)
    if len(chosen):
        answers = answer(
            model,
            tokenizer,
            chosen,
            max_new_tokens=section.max_new_tokens,
            batch_size=batch_size,
            cache=section.cache,
            on_progress=partial(on_progress, "answering") if on_progress else None,
            together=together,
        )
        figures |= means(answers, section.measures)
    if on_details is not None:
        on_details(
            measured.to_dict() | (score(answers, section.measures) if answers else {}), answers
        )
    return figures
