"""The model card of a merged model: what it is made of and how well the merge was checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.runs import model_card

if TYPE_CHECKING:
    from qtune.merging.merge import MergeReport
    from qtune.runs.model_card import Facts

BASES = {
    "dequantized": "the dequantised base that the adapter was trained on",
    "original": "the original weights of the base (not the quantised ones it was trained on)",
}


def card(report: MergeReport, *, facts: Facts) -> str:
    """README.md as text; `facts` are of the run, and hold no local path."""
    opening = [
        f"An adapter trained with qtune, folded into {BASES[report.base]}. "
        f"{report.edits} of {report.tensors} tensors differ from the base; "
        f"weights in {report.dtype}."
    ]
    if report.unties:
        opening.append(
            "The base tied its embedding and its output head; here they are two tensors."
        )
    labels = "SequenceClassification" in report.model_class
    return model_card.card(
        facts,
        name=f"{facts.base}, fine-tuned",
        library="transformers",
        relation="finetune",
        pipeline="text-classification" if labels else "text-generation",
        opening=[*opening, f"## Check\n\n{_check(report)}"],
        use=["```python", *_usage(str(report.model_class)), "```"],
    )


def _check(report: MergeReport) -> str:
    found = report.fidelity
    if found is None:
        return "The merged weights were not compared with the trained model."
    text = (
        f"Against the trained model (quantised base with the adapter live), both in fp32 compute, "
        f"over {found.positions} positions: mean KL {found.kl:.2e} nats per token, "
        f"top-1 agreement {100 * found.top1:.2f} %."
    )
    lossy = report.quantized
    if lossy is None:
        return text
    return (
        f"**These weights were quantised again (NF4) after the merge, which is lossy**: mean KL "
        f"{lossy.kl:.2e} nats per token to the trained model, top-1 agreement "
        f"{100 * lossy.top1:.2f} % over {lossy.positions} positions. What an adapter changes is "
        f"small beside NF4's steps, and much of it may be gone.\n\nBefore that: {text}"
    )


def _usage(kind: str) -> list[str]:
    return [
        f"from transformers import {kind}, AutoTokenizer",
        "",
        f'model = {kind}.from_pretrained("path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
    ]
