"""The model card of a merged model: what it is made of and how well the merge was checked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.merging.merge import MergeReport

BASES = {
    "dequantized": "the dequantised base that the adapter was trained on",
    "original": "the original weights of the base (not the quantised ones it was trained on)",
}


def card(report: MergeReport, *, base_name: str, summary: Mapping[str, Any], on_hub: bool) -> str:
    """README.md as text; `summary` is what is told of the recipe, and holds no local path."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if on_hub:
        lines.append(f"base_model: {base_name}")
    lines += [
        "tags: [qtune, qlora]",
        "---",
        "",
        f"# {base_name}, fine-tuned",
        "",
        f"An adapter trained with qtune, folded into {BASES[report.base]}. "
        f"{report.edits} of {report.tensors} tensors differ from the base; "
        f"weights in {report.dtype}.",
    ]
    if report.unties:
        lines += ["", "The base tied its embedding and its output head; here they are two tensors."]
    lines += [
        "",
        "## Check",
        "",
        _check(report),
        "",
        "## Recipe",
        "",
        "| key | value |",
        "|---|---|",
    ]
    lines += [f"| {key} | {_cell(value)} |" for key, value in summary.items()]
    lines += ["", "## Use", "", "```python", *_usage(str(report.model_class)), "```", ""]
    return "\n".join(lines)


def _check(report: MergeReport) -> str:
    found = report.fidelity
    if found is None:
        return "The merged weights were not compared with the trained model."
    return (
        f"Against the trained model (quantised base with the adapter live), both in fp32 compute, "
        f"over {found.positions} positions: mean KL {found.kl:.2e} nats per token, "
        f"top-1 agreement {100 * found.top1:.2f} %."
    )


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")


def _usage(kind: str) -> list[str]:
    return [
        f"from transformers import {kind}, AutoTokenizer",
        "",
        f'model = {kind}.from_pretrained("path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
    ]
