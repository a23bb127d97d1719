"""Local inputs made absolute, as each is relative to the file that names it; and cut for others."""

from __future__ import annotations

import glob
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import templates
from qtune.recipe.files import exists, expand

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.recipe.layers import Settings
    from qtune.recipe.node import Node

_MARKS = ("./", "../", "/", "~")


def localise(settings: Settings) -> None:
    """Make the local paths of a recipe absolute, in place; hub ids stay as they are."""
    for section, key in (("model", "name_or_path"), ("model", "tokenizer")):
        keys = settings.get(section, {})
        if key in keys:
            keys[key] = _local(keys[key])
    if "chat_template" in (model := settings.get("model", {})):
        model["chat_template"] = _template(model["chat_template"])
    if "mask_from" in (method := settings.get("method", {})):
        method["mask_from"] = _local(method["mask_from"], or_if=bool)
    if "teacher" in (loss := settings.get("loss", {})) and loss["teacher"].value != "base":
        loss["teacher"] = _local(loss["teacher"])
    if "tasks" in (measured := settings.get("eval", {})):
        measured["tasks"] = _task_files(measured["tasks"])
    data = settings.get("data", {})
    for key in {"train", "eval"} & data.keys():
        data[key] = _sources(data[key])
    if (output := settings.get("train", {}).get("output_dir")) is not None:
        settings["train"]["output_dir"] = _home(output)


def source_paths(node: Node) -> Node:
    """A source with its local paths made absolute."""
    return _source(node)


def is_local(text: str) -> bool:
    """Whether a path of a loaded recipe is a local one."""
    return Path(text).is_absolute()


def is_pattern(text: str) -> bool:
    """Whether a path has the signs of a glob, which no hub id has."""
    return glob.has_magic(text)


def portable(value: Any) -> Any:
    """The value with every absolute path cut down to its last part: folders are of one machine."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, str) and is_local(value):
        return Path(value).name
    return value


def _task_files(node: Node) -> Node:
    if not isinstance(node.value, list):
        return node
    return replace(node, value=[_local(item, or_if=bool) for item in node.value])


def _sources(node: Node) -> Node:
    if not isinstance(node.value, list):
        return node
    return replace(node, value=[_source(item) for item in node.value])


def _source(item: Node) -> Node:
    if not isinstance(item.value, dict) or "path" not in item.value:
        return item
    own = {**item.value, "path": _local(item.value["path"], or_if=is_pattern)}
    if "labels" in own:
        own["labels"] = _local(own["labels"], or_if=lambda _: True)
    return replace(item, value=own)


def _local(node: Node, *, or_if: Callable[[str], bool] = lambda _: False) -> Node:
    """The absolute path of what is marked as local, exists, or is local by `or_if`."""
    text = node.value
    if not isinstance(text, str) or not text:
        return node
    path = node.source.folder / expand(text)
    if text in (".", "..") or text.startswith(_MARKS) or exists(path) or or_if(text):
        return replace(node, value=os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
    return node


def _template(node: Node) -> Node:
    """A template file is a path whether it exists or not; a built-in's name is none."""
    if isinstance(node.value, str) and templates.is_file(node.value):
        return _local(node, or_if=templates.is_file)
    return node


def _home(node: Node) -> Node:
    """Outputs stay relative to the working directory; only ~ is read."""
    if isinstance(node.value, str) and node.value.startswith("~"):
        return replace(node, value=str(expand(node.value)))
    return node
