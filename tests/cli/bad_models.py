"""Faulty base models and places for the result, all told before a step is made."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.bad_cases import POINTER, TRAIN, WEIGHTS, Case, Change, cut, file, gone, json_file

CONFIG = "base/config.json"
TOKENIZER = "base/tokenizer.json"
INDEX = "base/model.safetensors.index.json"
DEEP = (99999).to_bytes(8, "little") + b"[" * 99999


def _lose_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _put_a_nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _as_bin(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "base" / "pytorch_model.bin")


def _other_name(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "base" / "model-00001-of-00002.safetensors")


def _shards(*, shard: str = "model-1.safetensors", extra: str = "") -> Change:
    """An index in front of the weights, in a file of that name."""

    def change(folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(folder / WEIGHTS, framework="pt") as opened:
            names = [*opened.keys(), *([extra] if extra else [])]
        (folder / WEIGHTS).rename(folder / "base" / "model-1.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))

    return change


def _embeds(folder: Path) -> None:
    """A tokenizer with more tokens than the model."""
    path = folder / TOKENIZER
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"word{number}": len(vocabulary) + number for number in range(100)}
    path.write_text(json.dumps(content))


def based(place: str) -> tuple[str, ...]:
    """The base named so."""
    return (f"model.name_or_path={place}",)


FOLDERS = {
    "no model folder": Case(4, ("nowhere", "no such"), set=based("./nowhere")),
    "a file as model": Case(4, ("folder", "base"), set=based(f"./{WEIGHTS}")),
    "a name that is no hub id": Case(4, ("a b",), set=based("'a b'")),
    "a model that is not in the cache": Case(4, ("me/mine", "cache"), set=based("me/mine")),
    "an adapter as base": Case(4, ("adapter",), set=based("./done/adapter")),
    "a run as base": Case(4, ("done",), set=based("./done")),
    "a gguf file": Case(4, ("GGUF", "16-bit"), file("m.gguf", "GGUF"), set=based("./m.gguf")),
    "an empty folder": Case(4, ("config.json",), set=based("./run")),
    "no config": Case(4, ("config.json",), gone(CONFIG)),
    "a broken config": Case(4, ("config.json:", "not valid JSON"), cut(CONFIG, 40)),
    "a config that is a list": Case(4, ("config.json", "object"), file(CONFIG, "[]")),
    "a config of bytes": Case(4, ("config.json",), file(CONFIG, b"\xff\xfe\0")),
    "a config nested too deeply": Case(4, ("config.json",), file(CONFIG, '{"a":' * 9999)),
    "a config left in git-lfs": Case(4, ("config.json", "git lfs pull"), file(CONFIG, POINTER)),
    "a config without a size": Case(4, ("hidden_size",), json_file(CONFIG, hidden_size=None)),
    "a size that is text": Case(4, ("hidden_size",), json_file(CONFIG, hidden_size="64")),
    "a size below zero": Case(4, ("hidden_size",), json_file(CONFIG, hidden_size=-64)),
    "heads that do not divide": Case(4, ("head",), json_file(CONFIG, num_attention_heads=0)),
    "an unknown family": Case(4, ("lama",), json_file(CONFIG, model_type="lama")),
    "no family": Case(4, ("model_type",), json_file(CONFIG, model_type=None)),
    "a family of another task": Case(4, ("clip",), json_file(CONFIG, model_type="clip")),
    "a base quantised by gptq": Case(
        4, ("gptq", "config.json"), json_file(CONFIG, quantization_config={"quant_method": "gptq"})
    ),
}
TOKENIZERS = {
    "no tokenizer": Case(4, ("tokenizer",), gone(TOKENIZER)),
    "a cut tokenizer": Case(4, ("tokenizer.json", "not valid JSON"), cut(TOKENIZER, 500)),
    "a tokenizer left in git-lfs": Case(
        4, ("tokenizer.json", "git lfs pull"), file(TOKENIZER, POINTER)
    ),
    "a tokenizer of nothing": Case(4, ("tokenizer",), file(TOKENIZER, "{}")),
    "a tokenizer config left in git-lfs": Case(
        4, ("tokenizer_config.json", "git lfs pull"), file("base/tokenizer_config.json", POINTER)
    ),
    "a tokenizer wider than the model": Case(4, ("embedding", "320"), _embeds),
    "a tokenizer that is not there": Case(4, ("nowhere",), set=("model.tokenizer=./nowhere",)),
}
WEIGHT_FILES = {
    "no weights": Case(4, ("base", "weights"), gone(WEIGHTS)),
    "weights cut short": Case(4, ("model.safetensors", "bytes"), cut(WEIGHTS, 9000)),
    "weights of no byte": Case(4, ("model.safetensors",), cut(WEIGHTS, 0)),
    "weights with a broken header": Case(
        4, ("model.safetensors",), file(WEIGHTS, b"\x09" + b"\0" * 7 + b"{" * 9)
    ),
    "weights with a header of any length": Case(
        4, ("model.safetensors",), file(WEIGHTS, b"\xff" * 64)
    ),
    "weights with a header nested too deeply": Case(
        4, ("model.safetensors", "header"), file(WEIGHTS, DEEP)
    ),
    "weights left in git-lfs": Case(
        4, ("model.safetensors", "git lfs pull"), file(WEIGHTS, POINTER)
    ),
    "a weight missing": Case(4, ("up_proj",), _lose_a_weight),
    "a NaN in the base": Case(4, ("model.norm.weight", "nan"), _put_a_nan),
    "weights of another size": Case(4, ("mlp",), json_file(CONFIG, intermediate_size=192)),
    "more layers than weights": Case(4, ("layers.2",), json_file(CONFIG, num_hidden_layers=3)),
    "fewer layers than weights": Case(4, ("layers.1",), json_file(CONFIG, num_hidden_layers=1)),
    "only pickled weights": Case(4, ("pytorch_model.bin", "pickle"), _as_bin),
    "a shard without its index": Case(4, ("model-00001-of-00002", "index"), _other_name),
    "an index of nothing": Case(4, ("weight_map",), file(INDEX, "{}")),
    "an index left in git-lfs": Case(4, ("index.json", "git lfs pull"), file(INDEX, POINTER)),
    "a shard that is not there": Case(
        4, ("model-2.safetensors", "missing"), _shards(shard="model-2.safetensors")
    ),
    "a weight the shard has not": Case(4, ("model.extra", "index"), _shards(extra="model.extra")),
}
PLACES = {
    "too little memory": Case(5, ("needs",), set=("memory.budget=1MB",)),
    "an output that is in use": Case(7, ("not empty",), file("run/recipe.yaml", "x")),
    "an output that is a file": Case(
        7, ("out", "file"), file("out", "x"), command=(*TRAIN[:2], "-o", "out", "-q")
    ),
    "an output below a file": Case(
        5, ("out/run", "is a file"), file("out", "x"), command=(*TRAIN[:2], "-o", "out/run", "-q")
    ),
    "an output nobody may write": Case(
        5, ("/proc",), command=(*TRAIN[:2], "-o", "/proc/run", "-q")
    ),
    "an output of nothing": Case(7, ("another with -o",), command=(*TRAIN[:2], "-o", "", "-q")),
    "an output with a name too long": Case(
        2, ("name",), command=(*TRAIN[:2], "-o", "a" * 300, "-q")
    ),
    "an output that is the base": Case(
        7, ("base", "not empty"), command=(*TRAIN[:2], "-o", "base", "-q")
    ),
}
CASES = {
    f"model: {name}": case
    for name, case in {**FOLDERS, **TOKENIZERS, **WEIGHT_FILES, **PLACES}.items()
}
