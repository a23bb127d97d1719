"""What a recipe, its data and its templates may try, and what comes of it: nothing runs."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qtune.cli.app import run_app
from tests.tiny import save_tiny, tiny_llama

CANARY = "canary"


class Touch:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked") / "base"
    save_tiny(folder, tiny_llama())
    return folder


@pytest.fixture
def place(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base").symlink_to(base)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}


@pytest.fixture(autouse=True)
def _nothing_ran(place: Path) -> Iterator[None]:
    before = _environment()
    yield
    assert not (place / CANARY).exists()
    assert _environment() == before


def settings(**model: Any) -> dict[str, Any]:
    return {
        "model": {"name_or_path": "base", **model},
        "data": {"train": [{"path": "train.jsonl"}]},
        "train": {"max_steps": 1},
    }


def attempt(place: Path, recipe: str | dict[str, Any], *verb: str) -> int:
    text = recipe if isinstance(recipe, str) else yaml.safe_dump(recipe)
    (place / "recipe.yaml").write_text(text)
    return run_app([*(verb or ("data", "check")), str(place / "recipe.yaml")])


PLAIN = yaml.safe_dump(settings())
RECIPES = {
    "a call": PLAIN + f'eval: !!python/object/apply:os.system ["touch {CANARY}"]\n',
    "a module": PLAIN + "eval: !!python/module:antigravity\n",
    "an environment": PLAIN + "env: {LD_PRELOAD: evil.so, PYTHONSTARTUP: evil.py}\n",
    "an environment in a section": PLAIN + "logging: {env: {HF_ENDPOINT: somewhere}}\n",
    "foreign code": yaml.safe_dump(settings(trust_remote_code=True)),
    "a plugin": PLAIN + "plugins: [evil]\n",
    "a method from a module": PLAIN + "method: {name: 'os:system'}\n",
    "an optimizer from a module": PLAIN + "optim: {name: 'os:system'}\n",
    "a tracker from a module": PLAIN + "logging: {report_to: ['os:system']}\n",
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_data(
    place: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    assert attempt(place, RECIPES[name], "validate") == 2
    record_property("G21 attacks", 1)


TEMPLATES = {
    "globals": "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
    "classes": "{% for c in ''.__class__.__mro__[1].__subclasses__() %}{{ c('x') }}{% endfor %}",
    "by attribute": "{{ (lipsum|attr('__globals__'))['os'].system('touch canary') }}",
    "by format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "an import": "{% import 'os' as os %}{{ os.system('touch canary') }}",
    "a file": "{% include 'train.jsonl' %}",
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "huge": "{{ 'x' * 99999999999 }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_in_a_sandbox(
    place: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    (place / "evil.jinja").write_text(TEMPLATES[name])
    assert attempt(place, settings(chat_template="evil.jinja")) == 3
    record_property("G21 attacks", 1)


@pytest.mark.parametrize("name", ["rows.pkl", "rows.pt", "rows.py", "rows.jsonl", "| touch canary"])
def test_data_is_data(
    place: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    content = pickle.dumps(Touch())
    if name.endswith("py"):
        content = b"import os\nos.system('touch canary')\n"
    if "|" not in name:
        (place / name).write_bytes(content)
    attacked = settings()
    attacked["data"]["train"] = [{"path": name}]
    assert attempt(place, attacked) == 3
    record_property("G21 attacks", 1)


def test_a_folder_with_a_loading_script_is_just_its_files(
    place: Path, record_property: Callable[[str, object], None]
) -> None:
    (place / "rows").mkdir()
    (place / "rows" / "rows.py").write_text("import os\nos.system('touch canary')\n")
    (place / "rows" / "train.jsonl").write_text((place / "train.jsonl").read_text())
    attacked = settings()
    attacked["data"]["train"] = [{"path": "rows"}]
    assert attempt(place, attacked) == 0
    record_property("G21 attacks", 1)


@pytest.mark.parametrize("verb", ["validate", "show", "plan"])
def test_no_environment_and_no_command_is_filled_in(
    place: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attacked = settings() | {"train": {"output_dir": "runs/${SECRET}-$(touch canary)-`id`"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "filled-in")
        attempt(place, attacked, verb)
    said = capsys.readouterr()
    assert "filled-in" not in said.out + said.err
