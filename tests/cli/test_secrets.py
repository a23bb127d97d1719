"""No secret and no place of the machine in anything that a run leaves, says or merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from qtune.cli.app import run_app
from tests.run.made_run import write_rows
from tests.tiny import save_tiny, tiny_llama

CANARIES = {
    "HF_TOKEN": "hf_CanaryThatMustNotBeKept",
    "HUGGING_FACE_HUB_TOKEN": "hf_OtherCanaryThatMustNotBeKept",
    "WANDB_API_KEY": "0123canary4567canary",
    "AWS_SECRET_ACCESS_KEY": "canary/secret/key",
}


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Path:
    """A home folder with everything in it, and secrets in the environment."""
    home = tmp_path_factory.mktemp("canary-home")
    for name, value in CANARIES.items():
        patched.setenv(name, value)
    patched.setenv("HOME", str(home))
    patched.setenv("USER", "canary-user")
    return home


@pytest.fixture(scope="module")
def left(home: Path) -> dict[str, bytes]:
    """Every file that training, evaluating, merging and a run that diverges leave."""
    save_tiny(home / "base", tiny_llama())
    write_rows(home / "train.jsonl", 24)
    write_rows(home / "test.jsonl", 8, first=100)
    recipe = home / "recipe.yaml"
    settings = {
        "model": {"name_or_path": str(home / "base")},
        "quantization": {"compute_dtype": "float32"},
        "data": {
            "train": [{"path": str(home / "train.jsonl")}],
            "eval": [{"path": str(home / "test.jsonl")}],
        },
        "train": {"batch_size": 8, "max_steps": 4},
        "eval": {"generate_rows": 2, "max_new_tokens": 4},
        "checkpoint": {"steps": 2},
        "logging": {"report_to": ["tensorboard"], "steps": 1},
    }
    recipe.write_text(yaml.safe_dump(settings))
    run, failed = home / "runs" / "good", home / "runs" / "bad"
    assert run_app(["train", str(recipe), "-o", str(run)]) == 0
    assert run_app(["eval", str(run)]) == 0
    assert run_app(["merge", str(run), "-o", str(home / "runs" / "merged")]) == 0
    limit = ["--set", "watchdog.loss_limit=0.001"]
    assert run_app(["train", str(recipe), "-o", str(failed), *limit]) == 6
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in (home / "runs").rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("canary", [*CANARIES, "HOME", "USER"])
def test_it_is_in_no_file(
    left: dict[str, bytes],
    home: Path,
    canary: str,
    record_property: Callable[[str, object], None],
) -> None:
    others = {"HOME": str(home), "USER": "canary-user"}
    sought = (CANARIES | others)[canary].encode()
    assert len(left) > 20
    assert [name for name, content in left.items() if sought in content] == []
    record_property("G20 files without a canary", len(left))


def test_it_is_looked_for_in_the_files_that_matter(left: dict[str, bytes]) -> None:
    names = {Path(name).name for name in left}
    assert names >= {
        "MANIFEST.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "diverged.json",
        "env.json",
        "log.txt",
        "metrics.jsonl",
        "recipe.yaml",
        "report.json",
        "README.md",
    }
    assert any("tfevents" in name for name in names)
