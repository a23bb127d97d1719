"""`qtune prune --drop-...`: a smaller model that plain transformers reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from qtune.cli.app import run_app
from qtune.models.structured import FAMILIES as KNOWN
from tests.run.made_run import write_rows
from tests.run.test_families import FAMILIES, TOKENS
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_rows(tmp_path / "rows.jsonl", 8)


def _prune(folder: Path, *words: str) -> int:
    rows = ["--calibration", str(folder / "rows.jsonl")]
    target = ["-o", str(folder / "new"), "--quiet"]
    return run_app(["prune", str(folder / "base"), *target, *rows, *words])


def _logits(folder: Path) -> Tensor:
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(40)[None] + 5
    with torch.no_grad():
        found: Tensor = network(input_ids=ids).logits
    return found


def _silence(network: nn.Module) -> None:
    """Different channels and heads of each layer add nothing, and layer 1 is no more than its
    input."""
    with torch.no_grad():
        for number, layer in enumerate(network.model.layers):  # type: ignore[union-attr,arg-type]
            channels = torch.randperm(192, generator=torch.Generator().manual_seed(number))[:64]
            layer.mlp.down_proj.weight[:, channels] = 0
            groups = [(number + 1) % 4, (number + 2) % 4]
            layer.self_attn.o_proj.weight.view(64, 4, 16)[:, groups] = 0
        network.model.layers[1].mlp.down_proj.weight.zero_()  # type: ignore[union-attr,index]
        network.model.layers[1].self_attn.o_proj.weight.zero_()  # type: ignore[union-attr,index]


@pytest.mark.parametrize("family", KNOWN)
def test_what_adds_nothing_is_not_missed(tmp_path: Path, family: str) -> None:
    torch.manual_seed(0)
    settings = {**FAMILIES.get(family, {}), **TOKENS, **SIZES, "vocab_size": 320}
    if "head_dim" in CONFIG_MAPPING[family]().to_dict():
        settings["head_dim"] = 8
    network = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**settings))
    _silence(network)
    save_tiny(tmp_path / "base", network)
    words = ("--drop-channels", "0.34", "--drop-heads", "0.5", "--drop-layers", "1")
    assert _prune(tmp_path, *words) == 0
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    sizes = ("intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    assert [config[name] for name in sizes] == [128, 4, 2, 8]
    assert config["num_hidden_layers"] == 3
    report = json.loads((tmp_path / "new" / "pruning.json").read_text())
    assert [layer["kept"] for layer in report["each_layer"]] == [True, False, True, True]
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert report["parameters"] == small.num_parameters()
    torch.testing.assert_close(
        _logits(tmp_path / "new"), _logits(tmp_path / "base"), rtol=1e-4, atol=1e-5
    )


def test_it_is_trained_on_in_four_bits(tmp_path: Path) -> None:
    save_tiny(tmp_path / "base", tiny_llama(**SIZES))
    assert _prune(tmp_path, "--drop-channels", "0.3", "--drop-heads", "0.5") == 0
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "model": {"name_or_path": "new"},
        "data": {"train": [{"path": "rows.jsonl"}]},
        "quantization": {"compute_dtype": "float32"},
        "train": {"max_steps": 1},
    }
    recipe.write_text(json.dumps(settings))
    assert run_app(["train", str(recipe), "-q", "-o", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--drop-channels", "0.1"), 2, "takes out nothing: 192 are there"),
        (("--drop-heads", "0.1"), 2, "4 are there, and there may be 1, 2, 4 with 2 heads each"),
        (("--drop-layers", "4"), 2, "takes out everything"),
        (("--drop-layers", "1", "--method", "wanda"), 2, "--drop-... takes parts out"),
        (("--drop-channels", "1.5"), 2, "no share between 0 and 1"),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_tiny(tmp_path / "base", tiny_llama(**SIZES))
    assert _prune(tmp_path, *words) == code
    assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_another_family_and_no_rows_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG_MAPPING["gpt2"](**FAMILIES["gpt2"], **TOKENS)
    save_tiny(tmp_path / "base", AutoModelForCausalLM.from_config(config))
    assert _prune(tmp_path, "--drop-layers", "1") == 4
    assert "which weights of gpt2 belong together" in capsys.readouterr().err
    code = run_app(["prune", "anything", "-o", str(tmp_path / "new"), "--drop-layers", "1"])
    assert code == 2
    assert "--calibration" in capsys.readouterr().err
