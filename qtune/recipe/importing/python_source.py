"""Keyword arguments of the calls in a script or notebook: parsed, never run."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.recipe.importing.python_data import data_of
from qtune.recipe.importing.python_values import constants, is_none, plain
from qtune.recipe.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.importing.python_values import Constants
    from qtune.recipe.node import Source

_MODEL = ("from_pretrained",)
_CALLS = {
    *("get_peft_model", "LoraConfig", "SFTConfig", "TrainingArguments", "SFTTrainer"),
    *("UnslothTrainingArguments", "BitsAndBytesConfig", "get_chat_template"),
    "train_on_responses_only",
}
_OTHERS = {
    **dict.fromkeys(("DPOTrainer", "DPOConfig"), "dpo"),
    **dict.fromkeys(("KTOTrainer", "KTOConfig"), "kto"),
    **dict.fromkeys(("ORPOTrainer", "ORPOConfig"), "orpo"),
    **dict.fromkeys(("GRPOTrainer", "GRPOConfig"), "grpo"),
    **dict.fromkeys(("PPOTrainer", "PPOConfig"), "ppo"),
    **dict.fromkeys(("RewardTrainer", "RewardConfig"), "reward"),
}
_NOT_SETTINGS = {
    *(
        "model",
        "tokenizer",
        "train_dataset",
        "eval_dataset",
        "args",
        "processing_class",
        "peft_config",
    ),
    *("data_collator", "quantization_config", "callbacks", "trainer", "formatting_func", "mapping"),
}
# A notebook's own commands, with the lines that go on behind a backslash.
_MAGIC = re.compile(r"^([ \t]*)[!%](?:.*\\\n)*.*$", re.MULTILINE)


def parse_script(text: str, source: Source) -> Node:
    """A flat table of what the known calls are given, with the parts of their names as `calls`.

    `computed.key` holds an argument that only running the script would tell, as it is written.
    """
    tree = _tree(text, source)
    known = constants(tree)
    table = data_of(tree, known, source)
    called: list[str] = []
    for call, name in _calls(tree):
        if name in _OTHERS:
            table["objective"] = Node(_OTHERS[name], source, call.lineno)
        elif name == "train_on_responses_only":
            table[name] = Node(True, source, call.lineno)
        elif name in _CALLS or (name == "from_pretrained" and _is_model(call)):
            called += ast.unparse(call.func).split(".")
            _arguments(call, known, table, source)
    table["calls"] = Node(None, source, 1).like(called)
    return Node(table, source, 1)


def cells(text: str, source: Source) -> str:
    """The code cells of a notebook, one after the other."""
    try:
        told = json.loads(text)
        blocks = [cell["source"] for cell in told["cells"] if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        raise UsageError("not a notebook", place=source.name) from None
    return "\n".join("".join(block) for block in blocks)


def _tree(text: str, source: Source) -> ast.Module:
    quiet = _MAGIC.sub(lambda match: match[1] + "pass" + "\n" * match[0].count("\n"), text)
    try:
        return ast.parse(quiet)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        place = f"{source.name}:{line}" if line else source.name
        raise UsageError("not valid Python", place=place) from None


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Calls in the order of their lines, each with the last part of its name."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(found, key=lambda each: each.lineno):
        name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
        if name:
            yield call, name


def _is_model(call: ast.Call) -> bool:
    """Whether it is a model that is loaded, no tokenizer."""
    owner = ast.unparse(call.func)
    return "Model" in owner and "Peft" not in owner


def _arguments(call: ast.Call, known: Constants, table: dict[str, Node], source: Source) -> None:
    if (model := _model(call)) is not None and isinstance(value := plain(model, known), str):
        table.setdefault("model_name", Node(value, source, model.lineno))
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in _NOT_SETTINGS:
            continue
        value = plain(keyword.value, known)
        at = Node(None, source, keyword.value.lineno)
        if value is None and not is_none(keyword.value, known):
            value = ast.unparse(keyword.value)[:60]
            if not keyword.arg.startswith(("bf16", "fp16")):
                table.setdefault(f"computed.{keyword.arg}", at.like(value))
            continue
        table.setdefault(keyword.arg, at.like(value))


def _model(call: ast.Call) -> ast.expr | None:
    """Where the call names a model: first, or as the trainer's model."""
    name = ast.unparse(call.func).rpartition(".")[2]
    if name not in ("from_pretrained", "SFTTrainer"):
        return None
    return next(
        (each.value for each in call.keywords if each.arg == "model"),
        call.args[0] if call.args else None,
    )
