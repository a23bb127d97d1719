"""`convert`: another tool's file, or a command line of qlora.py, to a checked recipe of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from qtune.errors import Fault, UsageError
from qtune.recipe.check import check, plain_settings
from qtune.recipe.files import exists, expand, read_text
from qtune.recipe.importing import (
    axolotl,
    litgpt,
    llama_factory,
    mlx,
    qlora_script,
    script,
    shared,
    torchtune,
    trl,
    unsloth,
)
from qtune.recipe.importing.command_line import parse_commands
from qtune.recipe.importing.commented import commented
from qtune.recipe.importing.draft import Draft, Left
from qtune.recipe.importing.facts import COMMON, UNKNOWN
from qtune.recipe.importing.python_source import cells, parse_script
from qtune.recipe.importing.tool import tool_of
from qtune.recipe.layers import Layer
from qtune.recipe.node import Node, Source
from qtune.recipe.sections import Recipe
from qtune.recipe.syntax import parse
from qtune.recipe.unread import unread

if TYPE_CHECKING:
    from collections.abc import Callable

LayersOf = "Callable[[str], int | None]"
_SIMPLE: dict[str, Callable[[Draft], None]] = {
    "axolotl": axolotl.fill,
    "LLaMA-Factory": llama_factory.fill,
    "TRL": trl.fill,
    "litgpt": litgpt.fill,
    "Unsloth": unsloth.fill,
    qlora_script.NAME: qlora_script.fill,
}
_SCRIPT = "Python script"


@dataclass(frozen=True)
class Imported:
    """A converted recipe: what it was, what it is, and what a person should know."""

    tool: str
    origin: str
    recipe: Recipe
    settings: dict[str, dict[str, Node]]
    left: tuple[Left, ...]
    remarks: tuple[str, ...]

    def text(self, folder: Path) -> str:
        """The recipe as YAML with comments, its local paths relative to a folder."""
        return commented(self, folder)

    def values(self) -> dict[str, Any]:
        """What was set: `optim.learning_rate` -> value."""
        return {
            f"{section}.{key}": node.plain()
            for section, keys in self.settings.items()
            for key, node in keys.items()
        }


def convert(
    given: str, *, devices: int = 1, layers_of: Callable[[str], int | None] = lambda _: None
) -> Imported:
    """Read and convert; `UsageError` with its place where it is nothing to convert.

    `given` is a path or a command line, `devices` how many processes it ran on, `layers_of` tells
    the number of a model's layers where it is known.
    """
    root, text = _read(given)
    tool, root = root if isinstance(root, tuple) else (tool_of(root), root)
    draft = Draft(tool if tool != _SCRIPT else "the script", root, devices=devices)
    if tool == "torchtune":
        torchtune.fill(draft, text)
    elif tool == "mlx-lm":
        mlx.fill(draft, layers_of)
    elif tool == _SCRIPT:
        script.fill(draft)
    else:
        _SIMPLE[tool](draft)
    shared.devices(draft)
    _settle(draft)
    recipe = _checked(draft)
    return Imported(
        tool=tool,
        origin=root.source.label,
        recipe=recipe,
        settings=draft.settings,
        left=tuple(draft.left),
        remarks=tuple(draft.remarks),
    )


def _read(given: str) -> tuple[Any, str]:
    """The tree, with its tool where the kind of file tells it, and the text."""
    path = expand(given)
    if not exists(path) and " --" in given:
        source = Source(name="the command line", label="the command line", folder=Path().resolve())
        return (qlora_script.NAME, parse_commands(given, source)), given
    text = read_text(path, name=given)
    source = Source(name=given, label=path.name, folder=path.resolve().parent)
    if path.suffix in (".py", ".ipynb"):
        code = cells(text, source) if path.suffix == ".ipynb" else text
        return (_SCRIPT, parse_script(code, source)), text
    if path.suffix in (".sh", ".bash") or text.startswith("#!"):
        return (qlora_script.NAME, parse_commands(text, source)), text
    return parse(text, source), text


def _settle(draft: Draft) -> None:
    """Local paths, keys that nothing would read here, and what is left of theirs."""
    _localise(draft)
    for key, named in (("model.name_or_path", "model"), ("data.train", "training data")):
        if not draft.has(key):
            hint = "name it there in plain text, or begin with qtune init --model ... --data ..."
            raise UsageError(f"names no {named}", place=draft.root.source.name, hint=hint)
    draft.leave_rest(COMMON, UNKNOWN)
    try:
        recipe = Recipe.model_validate(plain_settings(Layer(settings=draft.settings)))
    except ValidationError:
        return  # told by the check that follows
    for key, rule in unread(recipe).items():
        node = draft.drop(key) if key.count(".") == 1 else _of_source(draft, key)
        if node is not None and node.note.startswith("written "):
            theirs = node.note.removeprefix("written ")
            theirs += "" if key.count(".") == 1 else f".{key.rpartition('.')[2]}"
            value = str(node.plain())
            reason = f"nothing would read it: {rule.reason}"
            draft.left.append(Left(theirs, value, node.line, "not needed", reason))


def _of_source(draft: Draft, key: str) -> Node | None:
    """Take a key out of a source: `data.eval.0.split`."""
    section, part, index, name = key.split(".", 3)
    item = draft.settings[section][part].child(int(index))
    assert item is not None
    assert isinstance(item.value, dict)
    return item.value.pop(name, None)


def _checked(draft: Draft) -> Recipe:
    faults: list[Fault] = []
    recipe = check(Layer(settings=draft.settings), faults, file=draft.root.source.name)
    if recipe is None:
        raise UsageError.of(faults)
    return recipe


def _localise(draft: Draft) -> None:
    """Paths that are there from the working directory, as their tool reads them, made absolute."""
    for section, key in (("model", "name_or_path"), ("model", "tokenizer")):
        keys = draft.settings.get(section, {})
        if key in keys:
            keys[key] = _local(keys[key])
    for key in ("train", "eval"):
        node = draft.settings.get("data", {}).get(key)
        if node is not None and isinstance(node.value, list):
            items = [_with_local_path(item) for item in node.value]
            draft.settings["data"][key] = replace(node, value=items)


def _with_local_path(item: Node) -> Node:
    if not isinstance(item.value, dict) or "path" not in item.value:
        return item
    return replace(item, value={**item.value, "path": _local(item.value["path"])})


def _local(node: Node) -> Node:
    text = node.value
    if not isinstance(text, str) or not text:
        return node
    path = expand(text)
    if exists(path):
        return replace(node, value=str(path.absolute()))
    return node
