"""PEFT's tuners as methods: the same function, the same files, and what cannot be is told early."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qtune import methods, recipe
from qtune.errors import ModelError, UsageError
from qtune.methods.base import CannotMerge
from qtune.recipe.methods import BridgeConfig
from qtune.recipe.peft_types import ONLY_16_BIT, REFUSED, UNMERGED
from tests.methods.bases import attached, dense_model, dense_state, load, logits, randomise, train
from tests.tiny import tiny_llama

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TARGETS = ["q_proj", "v_proj", "down_proj"]
KEYS: dict[str, dict[str, Any]] = {
    "IA3": {},
    "VERA": {"r": 8},
    "OFT": {"oft_block_size": 4},
    "VBLORA": {"vector_length": 32, "num_vectors": 16},
    "LN_TUNING": {},
}


def config(kind: str) -> BridgeConfig:
    own = KEYS.get(kind, {})
    placed = kind not in ("IA3", "LN_TUNING")
    return BridgeConfig(type=kind, config={**own, "target_modules": TARGETS} if placed else own)


def base() -> Any:
    return tiny_llama().requires_grad_(False)


@pytest.mark.parametrize("kind", KEYS)
def test_a_bf16_base_stays_one(kind: str) -> None:
    model = base().to(torch.bfloat16)
    method = attached(model, config(kind))
    losses = train(model, method, rate=1e-2, steps=3)
    assert losses[-1] < losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters().values())


@pytest.mark.parametrize("kind", KEYS)
def test_peft_loads_our_files_and_we_load_its(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = base()
    method = attached(model, config(kind))
    randomise(method)
    ours = logits(model)
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    theirs = PeftModel.from_pretrained(base(), tmp_path / "a")
    assert torch.equal(logits(theirs), ours)
    theirs.save_pretrained(tmp_path / "b")
    again = base()
    methods.read(tmp_path / "b").attach(again, base_fingerprint=None)
    assert torch.equal(logits(again), ours)
    written = load_file(tmp_path / "b" / "adapter_model.safetensors")
    state = method.adapter_state()
    assert written.keys() == state.keys()


@pytest.mark.parametrize("kind", ["HRA", "LOHA", "VBLORA", "OFT", "LN_TUNING"])
def test_it_folds_as_peft_does(kind: str, tiny_folder: Path) -> None:
    found = load(tiny_folder, "fp32")
    dense = dense_state(found.model)
    method = attached(found.model, config(kind))
    train(found.model, method, rate=2e-2, steps=4)
    live = logits(found.model)
    edits = type(method).merge_edits(method.config, method.adapter_state())  # type: ignore[arg-type]
    merged = dict(dense)
    for name, edit in edits.items():
        merged[name] = edit.apply(dense[name] if edit.needs_base else None)
    assert (logits(dense_model(merged)) - live).abs().max() < 1e-5


def test_a_bias_is_scaled_with_its_outputs() -> None:
    model = tiny_llama(attention_bias=True).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    dense = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    method = attached(model, config("IA3"))
    randomise(method)
    live = logits(model)
    edits = type(method).merge_edits(method.config, method.adapter_state())  # type: ignore[arg-type]
    present = {name: edit for name, edit in edits.items() if name in dense}
    assert sum(name.endswith("bias") for name in present) == 4
    assert all(edits[name].optional for name in edits.keys() - present.keys())
    for name, edit in present.items():
        dense[name] = edit.apply(dense[name])
    merged = tiny_llama(attention_bias=True)
    merged.load_state_dict(dense)
    assert (logits(merged) - live).abs().max() < 1e-5


def test_what_is_not_folded_says_why() -> None:
    for kind, reason in UNMERGED.items():
        with pytest.raises(CannotMerge, match=reason):
            methods.METHODS["peft"].merge_edits(BridgeConfig(type=kind), {})


def loaded(text: str) -> Any:
    Path("r.yaml").write_text(
        f"model: {{name_or_path: m}}\ndata: {{train: [{{path: t.csv}}]}}\nmethod: {text}\n"
    )
    return recipe.load("r.yaml").recipe


@pytest.mark.usefixtures("elsewhere")
def test_types_that_cannot_work_are_refused_with_the_recipe() -> None:
    assert loaded("{name: peft, type: vera}").method.type == "VERA"
    for kind, reason in ONLY_16_BIT.items():
        with pytest.raises(UsageError, match="cannot be on a quantised base") as refused:
            loaded(f"{{name: peft, type: {kind}}}")
        assert reason in str(refused.value)
    for kind in REFUSED:
        with pytest.raises(UsageError, match="is not taken"):
            loaded(f"{{name: peft, type: {kind}}}")
    with pytest.raises(UsageError, match="VERA"):
        loaded("{name: peft, type: VERRA}")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_type_for_16_bits_is_refused_on_a_quantised_model(tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match="packed"):
        attached(load(tiny_folder, "nf4").model, config("LOHA"))


def test_the_words_of_peft_are_told() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        attached(base(), BridgeConfig(type="VERA", config={"nonsense": 3}))
    with pytest.raises(UsageError, match="PEFT's IA3 says"):
        attached(base(), BridgeConfig(type="IA3", config={"target_modules": ["x"]}))
    with pytest.raises(UsageError, match="modules_to_save is not read"):
        attached(base(), BridgeConfig(type="IA3", config={"modules_to_save": ["lm_head"]}))


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"qtune\[peft\]"):
        attached(base(), config("IA3"))


def test_tensors_of_another_adapter_are_refused(tmp_path: Path) -> None:
    method = attached(base(), config("IA3"))
    methods.save(tmp_path / "a", method, base_model="tiny", base_fingerprint="0123")
    path = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path)
    with pytest.raises(ModelError, match="missing"):
        methods.read(tmp_path / "a").attach(base(), base_fingerprint=None)


def test_the_config_is_json_that_peft_reads() -> None:
    from peft import IA3Config

    written = json.loads(json.dumps(attached(base(), config("IA3")).peft_config()))
    assert IA3Config(**{k: v for k, v in written.items() if k != "peft_type"}).target_modules == {
        *("k_proj", "v_proj", "down_proj")
    }
