"""The tuners of PEFT that the bridge takes, by their type: what they can do, and why others cannot.

Each was tried with PEFT 0.21 on an NF4 base and on a 16-bit one.
"""

from __future__ import annotations

from typing import Any, Literal

_PACKED = "its forward pass computes with the weight itself, which is packed on a quantised base"
_START = "it starts from the weights themselves, which are packed on a quantised base"
_OWN = "qtune has it: write method: {{name: {}}}"
_INPUT = "it changes what the model is given or how it runs, and is no tuner of layers"

PeftType = Literal[
    "IA3",
    "VERA",
    "BOFT",
    "C3A",
    "FOURIERFT",
    "GRALORA",
    "HIRA",
    "LILY",
    "LN_TUNING",
    "MISS",
    "OFT",
    "PVERA",
    "RANDLORA",
    "ROAD",
    "SHIRA",
    "TRAINABLE_TOKENS",
    "UNILORA",
    "VBLORA",
    "WAVEFT",
    "DEFT",
    "DELORA",
    "GLORA",
    "HRA",
    "LOHA",
    "LOKR",
    "OSF",
    "PEANUT",
    "PSOFT",
]

ONLY_16_BIT = {
    **dict.fromkeys(("DEFT", "HRA", "LOHA", "LOKR", "PEANUT"), _PACKED),
    **dict.fromkeys(("DELORA", "OSF", "PSOFT"), _START),
    "GLORA": "PEFT has it for plain linears alone",
    "UNILORA": "PEFT 0.21 leaves it out there without a word",
}
"""Types that need a base in 16 bits, with the reason."""

REFUSED = {
    "LORA": _OWN.format("lora"),
    "ADALORA": _OWN.format("adalora"),
    "BEFT": _OWN.format("bitfit"),
    "PROMPT_TUNING": _OWN.format("prompt"),
    "PREFIX_TUNING": _OWN.format("prefix"),
    "P_TUNING": _OWN.format("p_tuning"),
    **dict.fromkeys(("ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING"), _INPUT),
    **dict.fromkeys(("POLY", "SHADOW", "XLORA"), _INPUT),
    **dict.fromkeys(("ADAMSS", "FROD", "SUPERTUNING", "TINYLORA"), "not tried, or not to the end"),
}
"""Types that the bridge does not take, with the reason."""

UNMERGED = {
    **dict.fromkeys(
        ("LILY", "RANDLORA", "UNILORA"), "what it adds to a layer is drawn for all layers together"
    ),
    "TRAINABLE_TOKENS": "its rows belong to the embedding and to a head that is tied to it",
    "PEANUT": "it is a small network beside the layer, not a change of its weights",
}
"""Types whose adapters are not folded one weight at a time, with the reason."""


def known_type(value: Any) -> Any:
    """A type in capitals; `ValueError` with the reason for one that is not taken."""
    if not isinstance(value, str):
        return value
    name = value.upper()
    if name in REFUSED:
        raise ValueError(f"is not taken: {REFUSED[name]}")
    return name
