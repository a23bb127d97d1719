"""The whole road of images: a tiny ViT learns to tell drawn patterns apart.

The references are plain transformers and PEFT.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from qtune.errors import ExitCode, ModelError, UsageError
from qtune.run.data import Choice, preview
from qtune.run.data_check import check
from qtune.run.data_statistics import stats
from qtune.run.display import Quiet
from qtune.run.dry import dry_run
from qtune.run.eval import evaluate
from qtune.run.generate import Speaker
from qtune.run.merge import merge
from qtune.run.plan import plan
from qtune.run.resume import Wanted
from qtune.run.subject import load, resolve
from qtune.run.train import train
from tests.tiny_vision import PATTERNS, SIDE, draw, save_tiny_vit, tiny_vit

if TYPE_CHECKING:
    from pathlib import Path


def made(folder: Path, *, each: int = 8, **sections: Any) -> Path:
    """A random ViT, drawn pictures of three patterns, so many of each, and a recipe."""
    save_tiny_vit(folder / "base")
    draw(folder / "train", each, seed=1)
    draw(folder / "val", each // 2, seed=2)
    settings: dict[str, Any] = {
        "task": "classification",
        "model": {"name_or_path": "./base"},
        "quantization": {"compute_dtype": "float32"},
        "method": {"name": "lora", "rank": 8, "dropout": 0.0},
        "data": {
            "train": [{"path": "./train"}],
            "eval": [{"path": "./val"}],
            "cache_dir": str(folder / "cache"),
        },
        "optim": {"learning_rate": 5e-3, "name": "adamw"},
        "train": {"max_steps": 2, "output_dir": str(folder / "run")},
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings | sections))
    return recipe


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a run that learnt the patterns, and its report."""
    folder = tmp_path_factory.mktemp("images")
    longer = {"num_train_epochs": 6, "output_dir": str(folder / "run")}
    recipe = made(folder, each=64, train=longer, eval={"at_start": True})
    report, code = train(recipe, display=Quiet())
    assert code == ExitCode.DONE
    return folder, report


def pixels() -> torch.Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_patterns_are_learnt_through_nf4(learnt: tuple[Path, dict[str, Any]]) -> None:
    _, report = learnt
    assert report["supervised_tokens"] == 6 * 192
    first, last = report["evaluations"][0], report["evaluations"][-1]
    assert first["accuracy"] < 0.5
    assert last["accuracy"] > 0.9


def test_the_trained_model_is_the_same_in_other_hands(learnt: tuple[Path, dict[str, Any]]) -> None:
    folder, report = learnt
    ours = load(resolve(str(folder / "run")), device=torch.device("cpu"))
    measured = evaluate(str(folder / "run"), display=Quiet())
    assert measured["adapter"]["accuracy"] == report["evaluations"][-1]["accuracy"]
    assert measured["adapter"]["labels"] == list(PATTERNS)
    assert sum(map(sum, measured["adapter"]["confusion"])) == 96
    result = merge(str(folder / "run"), folder / "merged", display=Quiet())
    assert result["verification"]["kl"] < 1e-9
    assert result["verification"]["rows"] == "the held-out images"
    plain = AutoModelForImageClassification.from_pretrained(folder / "merged").eval()
    assert plain.config.id2label == dict(enumerate(PATTERNS))
    assert "pad_token_id" not in json.loads((folder / "merged/config.json").read_text())
    assert AutoImageProcessor.from_pretrained(folder / "merged").size["height"] == SIDE
    with torch.no_grad():
        expected = ours.base.model(pixel_values=pixels()).logits
        actual = plain(pixel_values=pixels()).logits
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    again = evaluate(str(folder / "merged"), str(folder / "val"), display=Quiet())
    assert again["model"]["confusion"] == measured["adapter"]["confusion"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_adapter_loads_in_peft(tmp_path: Path) -> None:
    dense = {"bits": 16, "compute_dtype": "float32"}
    train(made(tmp_path, quantization=dense), display=Quiet())
    ours = load(resolve(str(tmp_path / "run")), device=torch.device("cpu"))
    base = AutoModelForImageClassification.from_pretrained(
        tmp_path / "base", num_labels=len(PATTERNS), ignore_mismatched_sizes=True
    )
    theirs = PeftModel.from_pretrained(base, tmp_path / "run/adapter").eval()
    assert theirs.peft_config["default"].task_type is None  # PEFT has none of images
    with torch.no_grad():
        expected = ours.base.model(pixel_values=pixels()).logits
        torch.testing.assert_close(theirs(pixel_values=pixels()).logits, expected)


def test_what_is_recomputed_changes_nothing(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    finals = {}
    for policy in ("none", "selective", "layer", "offload"):
        run = tmp_path / policy
        settings = [f"memory.activations={policy}", f"train.output_dir={run}"]
        train(recipe, overrides=settings, display=Quiet())
        finals[policy] = (run / "adapter/adapter_model.safetensors").read_bytes()
    assert len(set(finals.values())) == 1


def test_the_plan_says_what_is_trained_and_refuses_what_has_no_effect(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    planned = plan(recipe).plan
    assert planned.steps is not None
    assert planned.steps.tokens_upper == (16 + 8) * 17
    tried = dry_run(recipe, display=Quiet())
    assert tried["plan"]["trainable_parameters"] == planned.trainable_parameters
    with pytest.raises(UsageError, match="no effect on images: each is 17 tokens of vit"):
        plan(recipe, overrides=["data.max_length=64"])


@pytest.mark.parametrize("method", ["prompt", "prefix", "p_tuning", "long_lora"])
def test_methods_of_tokens_are_refused(tmp_path: Path, method: str) -> None:
    with pytest.raises(UsageError, match=r"method\.name"):
        plan(made(tmp_path, method={"name": method}))


def test_the_rows_can_be_looked_at(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    shown = preview(recipe, Choice(2), display=Quiet()).rows[0]
    assert [piece.text for piece in shown.pieces] == ["checks/000.png, 32 x 32 RGB", " checks"]
    assert [piece.learnt for piece in shown.pieces] == [False, True]
    assert check(recipe, display=Quiet()).to_dict()["valid"]
    assert stats(recipe, display=Quiet()).to_dict()["labels"] == dict.fromkeys(PATTERNS, 8)


def test_a_classifier_of_images_writes_nothing(tmp_path: Path) -> None:
    save_tiny_vit(tmp_path / "base", tiny_vit(num_labels=5))
    with pytest.raises(UsageError, match="is a classifier, and writes no text"):
        Speaker(str(tmp_path / "base"), display=Quiet())


def test_an_image_processor_of_another_size_is_told_before_weights(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    settings = tmp_path / "base/preprocessor_config.json"
    content = json.loads(settings.read_text()) | {"size": {"height": 16, "width": 16}}
    settings.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="makes 16 x 16 pixels, the model wants 32 x 32"):
        train(recipe, display=Quiet())
    settings.unlink()
    with pytest.raises(ModelError, match="no preprocessor_config"):
        train(recipe, display=Quiet())


def test_checkpoints_of_old_names_with_a_pooler_load(tmp_path: Path) -> None:
    """As google's are: query, key and value by their old names, and a pooler that no head uses."""
    recipe = made(tmp_path)
    path = tmp_path / "base/model.safetensors"
    save_tiny_vit(tmp_path / "base", tiny_vit(num_labels=5))
    expected = tiny_vit(num_labels=5).state_dict()
    old = {
        "vit.layers.": "vit.encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    stored = {}
    for name, tensor in expected.items():
        for new, before in old.items():
            name = name.replace(new, before)
        stored[name] = tensor.contiguous()
    stored["vit.pooler.dense.weight"] = torch.zeros(64, 64)
    stored["vit.pooler.dense.bias"] = torch.zeros(64)
    save_file(stored, path, metadata={"format": "pt"})
    subject = resolve(str(tmp_path / "base"))
    network = load(subject, device=torch.device("cpu")).base.model
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert plan(recipe).plan.fits


def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    train(recipe, overrides=[f"train.output_dir={tmp_path / 'whole'}"], display=Quiet())
    train(recipe, overrides=["train.max_steps=1"], display=Quiet())
    train(recipe, wanted=Wanted(allowed=True, required=True), display=Quiet())
    whole, parts = (tmp_path / name / "adapter" for name in ("whole", "run"))
    name = "adapter_model.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()
