"""What the README says is so."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from qtune import plan, recipe
from qtune.cli.app import run_app
from qtune.methods import bitfit, table
from qtune.recipe.keys import SECTIONS
from tests.tiny import tiny_llama

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_recipe_is_valid_and_short(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "recipe.yaml"
    path.write_text(block)
    asked = recipe.load(path).recipe
    assert asked.model.name_or_path == "Qwen/Qwen3-8B"
    assert asked.data.val_size == 200
    assert block.count("\n") <= 10


def test_it_names_every_verb_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"^\| `qtune (\w+)", README, re.MULTILINE)) | {"chat"}
    assert run_app(["--help"]) == 0
    listed = set(re.findall(r"^│ (\w+)  ", capfd.readouterr().out, re.MULTILINE))
    assert named == listed


def test_it_names_every_section() -> None:
    [text] = re.findall(r"A recipe has sections: `([^`]*)`", README)
    assert re.split(r",\s+", text) == sorted(SECTIONS, key=re.split(r",\s+", text).index)


def test_its_scripts_and_folders_exist() -> None:
    for name in re.findall(r"scripts/[\w/.]+", README):
        assert (ROOT / name.rstrip("/.")).exists(), name


def test_it_is_short() -> None:
    prose = re.sub(r"```python\n.*?```", "", README, flags=re.DOTALL)
    assert prose.count("\n") <= 294


def test_its_method_is_one() -> None:
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    for module in (recipe.methods, plan.adapters, bitfit, table):
        names |= vars(module)
    names["ROWS"] = {}
    exec(compile(block, "README.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own

    plain = tiny_llama().requires_grad_(requires_grad=False)
    model, ids = copy.deepcopy(plain), torch.arange(3, 11)[None]
    method = names["Gain"](names["GainConfig"](), seed=0)
    method.attach(model)
    assert method.name in names["ROWS"]
    assert torch.equal(model(ids).logits, plain(ids).logits)
    shape = plan.shape_of(plain.config.to_dict())
    counted = sum(tensor.elements for tensor in names["_gains"](method.config, shape))
    assert counted == sum(gain.numel() for gain in method.parameters().values()) > 0

    optimizer = torch.optim.SGD(method.param_groups(learning_rate=0.1, weight_decay=0.0))
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    trained = model(ids).logits
    assert not torch.allclose(trained, plain(ids).logits, atol=1e-4)
    config = names["Gain"].config_from_peft(method.peft_config())
    state = plain.state_dict()
    for name, edit in names["Gain"].merge_edits(config, method.adapter_state()).items():
        if name in state or not edit.optional:
            state[name].copy_(edit.apply(state[name]))
    torch.testing.assert_close(plain(ids).logits, trained, rtol=1e-5, atol=1e-5)
