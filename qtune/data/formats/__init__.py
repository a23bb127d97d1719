"""What a row may look like: one file a format, looked up by name."""

from qtune.registry import Registry

FORMATS = Registry(
    "data format",
    {
        "alpaca": "qtune.data.formats.alpaca:ALPACA",
        "messages": "qtune.data.formats.messages:MESSAGES",
        "sharegpt": "qtune.data.formats.sharegpt:SHAREGPT",
        "prompt-completion": "qtune.data.formats.prompt_completion:PROMPT_COMPLETION",
        "text": "qtune.data.formats.text:TEXT",
    },
)
