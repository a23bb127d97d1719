"""The methods by the name in the recipe and by the type in PEFT's files."""

from __future__ import annotations

from qtune.registry import Registry

METHODS = Registry(
    "method",
    {
        "lora": "qtune.methods.lora:Lora",
        "lora_fa": "qtune.methods.lora_fa:LoraFa",
        "dylora": "qtune.methods.dylora:Dylora",
        "adalora": "qtune.methods.adalora:Adalora",
        "bitfit": "qtune.methods.bitfit:Bitfit",
        "prompt": "qtune.methods.prompt:Prompt",
        "prefix": "qtune.methods.prefix:PrefixTuning",
        "bottleneck": "qtune.methods.bottleneck:BottleneckAdapters",
    },
)
BY_PEFT_TYPE = {
    "LORA": "lora",
    "ADALORA": "adalora",
    "BEFT": "bitfit",
    "PROMPT_TUNING": "prompt",
    "PREFIX_TUNING": "prefix",
    "BOTTLENECK": "bottleneck",
}
