"""The methods by the name in the recipe, each with what `qtune methods` says of it. No torch.

Every statement is proven on the method itself by tests/methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from qtune.recipe.peft_types import PeftType
from qtune.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method: its class, the type of its adapter file, and its facts."""

    place: str
    """module:class."""
    peft_type: str
    """What adapter_config.json says; the first method of a type reads its files."""
    trains: str
    """What learns; names the parts that the plan counts."""
    paper: str
    merges: bool = True
    """Whether it can become part of plain weights."""
    four_bit: bool = True
    """Whether it works on a 4-bit base."""
    note: str = ""
    """What of this depends on its keys."""


ROWS = {
    "lora": Row(
        place="qtune.methods.lora:Lora",
        peft_type="LORA",
        trains="low-rank matrices A and B beside each linear",
        paper="Hu et al. 2021, arXiv:2106.09685",
        note="with use_rslora, use_dora, loraplus_ratio: rsLoRA, DoRA, LoRA+",
    ),
    "long_lora": Row(
        place="qtune.methods.long_lora:LongLora",
        peft_type="LORA",
        trains="low-rank matrices beside each linear, modules trained whole: norms and embeddings",
        paper="Chen et al. 2023, arXiv:2309.12307",
        note="in training each token sees its group of a row alone, in evaluation everything",
    ),
    "lora_fa": Row(
        place="qtune.methods.lora_fa:LoraFa",
        peft_type="LORA",
        trains="low-rank matrices, B alone: A stays as drawn",
        paper="Zhang et al. 2023, arXiv:2308.03303",
    ),
    "dylora": Row(
        place="qtune.methods.dylora:Dylora",
        peft_type="LORA",
        trains="low-rank matrices, good at every rank up to theirs",
        paper="Valipour et al. 2022, arXiv:2210.07558",
    ),
    "delta_lora": Row(
        place="qtune.methods.delta_lora:DeltaLora",
        peft_type="DELTA_LORA",
        trains="low-rank matrices, whose changes move the weight, too",
        paper="Zi et al. 2023, arXiv:2309.02411",
        note="form: in_place needs a 16-bit base; virtual, the same numbers, does not",
    ),
    "rosa": Row(
        place="qtune.methods.rosa:Rosa",
        peft_type="ROSA",
        trains="low-rank matrices, and sparse values where each weight's gradient is largest",
        paper="Nikdan et al. 2024, arXiv:2401.04679",
    ),
    "adalora": Row(
        place="qtune.methods.adalora:Adalora",
        peft_type="ADALORA",
        trains="low-rank triplets, whose ranks move to where they count",
        paper="Zhang et al. 2023, arXiv:2303.10512",
    ),
    "bitfit": Row(
        place="qtune.methods.bitfit:Bitfit",
        peft_type="BEFT",
        trains="delta-biases after each linear",
        paper="Ben Zaken et al. 2021, arXiv:2106.10199",
    ),
    "quantum": Row(
        place="qtune.methods.quantum:Quantum",
        peft_type="QUANTUM",
        trains="generators of orthonormal columns U and V, and what lies between: U diag(l) V^T",
        paper="Koike-Akino et al. 2025, arXiv:2503.05431",
    ),
    "prompt": Row(
        place="qtune.methods.prompt:Prompt",
        peft_type="PROMPT_TUNING",
        trains="a prompt of learned embeddings before the row",
        paper="Lester et al. 2021, arXiv:2104.08691",
        merges=False,
    ),
    "p_tuning": Row(
        place="qtune.methods.p_tuning:PTuning",
        peft_type="P_TUNING",
        trains="a prompt encoder: a small network that makes the embeddings before the row",
        paper="Liu et al. 2021, arXiv:2103.10385",
        merges=False,
    ),
    "prefix": Row(
        place="qtune.methods.prefix:PrefixTuning",
        peft_type="PREFIX_TUNING",
        trains="prefixes: learned keys and values in each layer",
        paper="Li and Liang 2021, arXiv:2101.00190",
        merges=False,
    ),
    "bottleneck": Row(
        place="qtune.methods.bottleneck:BottleneckAdapters",
        peft_type="BOTTLENECK",
        trains="bottlenecks: a small MLP in each layer",
        paper="Houlsby et al. 2019, arXiv:1902.00751",
        merges=False,
    ),
    "selective": Row(
        place="qtune.methods.selective:Selective",
        peft_type="SELECTIVE",
        trains="tensors of the base: trained norms, attentions, mlps, embeddings, heads",
        paper="Lee et al. 2023, arXiv:2210.11466",
        note="matrices that train are left in 16 bits when the base is loaded",
    ),
    "peft": Row(
        place="qtune.methods.bridge:Bridge",
        peft_type="IA3",
        trains="what a tuner of PEFT trains",
        paper="Mangrulkar et al. 2022, PEFT",
        note="type names the tuner: IA3, VERA, OFT, ...; some need 16 bits, some do not merge",
    ),
    "combination": Row(
        place="qtune.methods.combination:Combination",
        peft_type="COMBINATION",
        trains="several methods at once, such as low-rank matrices and a prefix",
        paper="He et al. 2022, arXiv:2110.04366",
        note="written as a list, method: [{name: lora}, {name: bitfit}]; merges if all parts do",
    ),
}
COMBINATION = ROWS["combination"].peft_type
METHODS = Registry("method", {name: row.place for name, row in ROWS.items()})
BY_PEFT_TYPE = dict.fromkeys(get_args(PeftType), "peft")
BY_PEFT_TYPE |= {row.peft_type: name for name, row in reversed(ROWS.items())}
