"""What a row may look like: one file a format, looked up by name."""

from qtune.registry import Registry

FORMATS = Registry(
    "data format",
    {
        "alpaca": "qtune.data.formats.alpaca:ALPACA",
        "messages": "qtune.data.formats.messages:MESSAGES",
        "sharegpt": "qtune.data.formats.sharegpt:SHAREGPT",
        "tree": "qtune.data.formats.tree:TREE",
        "prompt-completion": "qtune.data.formats.prompt_completion:PROMPT_COMPLETION",
        "self-instruct": "qtune.data.formats.self_instruct:SELF_INSTRUCT",
        "classification": "qtune.data.formats.classification:CLASSIFICATION",
        "multiple-choice": "qtune.data.formats.multiple_choice:MULTIPLE_CHOICE",
        "preference": "qtune.data.formats.preference:PREFERENCE",
        "unpaired": "qtune.data.formats.unpaired:UNPAIRED",
        "text": "qtune.data.formats.text:TEXT",
        "tokens": "qtune.data.formats.tokens:TOKENS",
    },
)
