"""Where a model is looked for, and what is said when it is not there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from qtune.errors import ModelError
from qtune.models import resolve, shard_index
from qtune.models.files import SMALL
from qtune.models.skeleton import model_config
from qtune.recipe.inputs import ModelSection
from tests.models.workshop import INDEX, edit_config, load_folder
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path


def one_fault(error: ModelError) -> tuple[str, str]:
    assert len(error.faults) == 1
    return error.faults[0].message, error.faults[0].hint


def cache_model(cache: Path, repository: str, commit: str, branch: str = "main") -> Path:
    """A hub cache as huggingface_hub lays it out."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(commit)
    return save_tiny(root / "snapshots" / commit)


def test_a_folder_is_itself(whole: Path) -> None:
    assert resolve(ModelSection(name_or_path=str(whole))) == whole


def test_a_hub_id_is_found_in_the_cache_by_branch_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    first, second = "a" * 40, "b" * 40
    old = cache_model(tmp_path, "owner/tiny", first, branch="v1")
    new = cache_model(tmp_path, "owner/tiny", second)
    assert resolve(ModelSection(name_or_path="owner/tiny")) == new
    assert resolve(ModelSection(name_or_path="owner/tiny", revision="v1")) == old
    assert resolve(ModelSection(name_or_path="owner/tiny", revision=first)) == old
    with pytest.raises(ModelError, match="owner/tiny at revision v9 is not in the local"):
        resolve(ModelSection(name_or_path="owner/tiny", revision="v9"))


def test_a_process_that_does_not_read_fetches_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another machine than the one that reads, which may have no such disk."""
    asked = []

    def fetch(_: str, *, allow_patterns: list[str], **__: object) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    section = ModelSection(name_or_path="owner/tiny")
    resolve(section)
    resolve(section, patterns=SMALL)
    assert [any("safetensors" in each for each in one) for one in asked] == [True, False]


def test_an_unknown_hub_id_offline_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not in the local cache") as caught:
        resolve(ModelSection(name_or_path="owner/absent"))
    assert "hf download owner/absent" in caught.value.faults[0].hint


@pytest.mark.parametrize("name", ["./nowhere", "../no/where", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        resolve(ModelSection(name_or_path=name))


@pytest.mark.parametrize("name", ["owner/ti ny", "-x", "a..b"])
def test_neither_a_path_nor_a_hub_id(name: str) -> None:
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        resolve(ModelSection(name_or_path=name))


def test_a_file_is_no_folder(whole: Path) -> None:
    with pytest.raises(ModelError, match="not a file"):
        resolve(ModelSection(name_or_path=str(whole / "config.json")))


def test_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    with pytest.raises(ModelError, match="an adapter, not a model") as caught:
        load_folder(tmp_path)
    assert "owner/base" in one_fault(caught.value)[1]


def test_faulty_configs(folder: Path) -> None:
    path = folder / "config.json"
    good = path.read_text()
    for text, said in (
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "cannot read it"),
        ('{"model_type": "nonsense"}', "cannot read it"),
        (good.replace('"hidden_size": 64', '"hidden_size": "many"'), "cannot read it"),
        ('{"model_type": "t5"}', "no causal language model"),
    ):
        path.write_text(text)
        with pytest.raises(ModelError, match=said) as caught:
            load_folder(folder)
        place = f"{path}:1" if said == "not valid JSON" else str(path)
        assert caught.value.faults[0].place == place
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_folder(folder)


def test_code_from_a_model_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.Own"})
    with pytest.raises(ModelError, match="needs code from its folder, and qtune runs none"):
        load_folder(folder)
    # A class that transformers has is used instead of the folder's.
    edit_config(folder, model_type="llama")
    assert type(model_config(folder)).__name__ == "LlamaConfig"
    load_folder(folder)
    assert not mark.exists()


def test_index_of_one_and_of_several_files(folder: Path, sharded: Path) -> None:
    one, several = shard_index(folder), shard_index(sharded)
    assert set(one) == set(several)
    assert set(one.values()) == {folder / "model.safetensors"}
    assert len(set(several.values())) > 2


def test_missing_shards_are_listed(sharded: Path) -> None:
    gone = sorted(sharded.glob("model-*"))[1:3]
    for path in gone:
        path.unlink()
    with pytest.raises(ModelError, match="2 of 5 weight files are missing") as caught:
        load_folder(sharded)
    assert all(path.name in str(caught.value) for path in gone)


def test_an_index_that_promises_too_much(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["model.extra"] = min(index["weight_map"].values())
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"does not hold model\.extra"):
        load_folder(sharded)
    (sharded / INDEX).write_text("{}")
    with pytest.raises(ModelError, match="no weight_map"):
        load_folder(sharded)


def test_an_index_may_not_lead_out_of_its_folder(sharded: Path, folder: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    first = min(index["weight_map"])
    index["weight_map"][first] = f"../{folder.name}/model.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside"):
        load_folder(sharded)


def test_pickles_are_refused_with_the_way_out(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors weights"):
        load_folder(folder)
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="reads no pickle") as caught:
        load_folder(folder)
    assert "save_pretrained" in one_fault(caught.value)[1]
    (folder / "odd-1.safetensors").touch()
    with pytest.raises(ModelError, match="neither"):
        load_folder(folder)
