"""qtune push: what goes, what must not, and how it is sent; against a hub that only notes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from qtune.errors import ModelError, ResourceError, UsageError
from qtune.run import push as pushing
from qtune.run.display import Quiet
from qtune.run.parcel import pack
from qtune.run.push import push
from tests.run.made_run import make_run


class Hub:
    """What was asked of it; `private` is what its repositories are."""

    def __init__(self, private: bool = True, fault: Exception | None = None) -> None:
        self.made: list[tuple[str, bool]] = []
        self.commits: list[dict[str, bytes]] = []
        self.private = private
        self.fault = fault

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        if self.fault is not None:
            raise self.fault
        self.made.append((repo_id, private))

    def repo_info(self, repo_id: str) -> Any:
        del repo_id
        return SimpleNamespace(private=self.private)

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> Any:
        del commit_message
        content = {}
        for one in operations:
            with one.as_file() as stream:
                content[one.path_in_repo] = stream.read()
        self.commits.append(content)
        return SimpleNamespace(commit_url=f"https://hub.invalid/{repo_id}/commit/1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def adapter(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def send(thing: Path, api: Any = None, **settings: Any) -> dict[str, Any]:
    return push(str(thing), "me/it", display=Quiet(), api=api, **settings)


def test_a_runs_adapter_goes_in_one_private_commit_with_a_card(run: Path) -> None:
    hub = Hub()
    report = send(run, hub)
    assert hub.made == [("me/it", True)]
    (commit,) = hub.commits
    assert sorted(commit) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert commit[name] == (run / "adapter" / name).read_bytes()
    assert commit["README.md"].startswith(b"---\nlibrary_name: peft\n")
    assert str(run.parent).encode() not in commit["README.md"]
    assert report["url"] == "https://hub.invalid/me/it/commit/1"
    assert {entry["name"]: entry["bytes"] for entry in report["files"]} == {
        name: len(content) for name, content in commit.items()
    }


def test_a_dry_run_lists_the_same_and_asks_nobody(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = send(run, None, dry_run=True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    sent = send(run, Hub())
    assert told["files"] == sent["files"]
    assert (told["private"], told["url"]) == (True, None)


def test_offline_and_tokenless_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        send(run, Hub())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UsageError, match="no token") as caught:
        send(run)
    assert "HF_TOKEN" in str(caught.value)


def test_a_public_repository_gets_nothing_private(run: Path) -> None:
    hub = Hub(private=False)
    with pytest.raises(UsageError, match="and public"):
        send(run, hub)
    assert hub.commits == []
    assert send(run, hub, public=True)["private"] is False
    assert hub.made[-1] == ("me/it", False)


def test_what_the_hub_refuses_is_told_on_one_line(run: Path) -> None:
    with pytest.raises(ResourceError, match="did not take it: 403") as caught:
        send(run, Hub(fault=OSError("403 Forbidden\nmore")))
    assert "more" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (".env", "looks like a secret"),
        ("id_rsa", "looks like a secret"),
        ("server.pem", "looks like a secret"),
        ("training.safetensors", "state of a training"),
        ("optimizer.safetensors", "state of a training"),
        ("adapter_model.bin", "a pickle"),
    ],
)
def test_a_folder_with_such_a_file_is_refused(name: str, match: str, adapter: Path) -> None:
    (adapter / name).write_text("x")
    hub = Hub()
    with pytest.raises(UsageError, match=match) as caught:
        send(adapter, hub)
    assert name in str(caught.value)
    assert hub.made == []


def test_what_is_broken_is_refused(run: Path, adapter: Path, tmp_path: Path) -> None:
    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    model = tmp_path / "model"
    shutil.copytree(run.parent / "base", model)
    tensors = load_file(weights)
    first = next(iter(tensors))
    unsound = save({**tensors, first: tensors[first] * torch.nan})
    for path, content, match in (
        (weights, weights.read_bytes()[:-9], "not a whole safetensors file"),
        (weights, b"", "not a whole safetensors file"),
        (weights, unsound, "hold NaN"),
        (config, b"", "not valid JSON"),
        (model / "model.safetensors", b"", "not a whole safetensors file"),
        (model / "config.json", b"{", "not valid JSON"),
    ):
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ModelError, match=match) as told:
            send(path.parent, None, dry_run=True)
        assert str(path) in str(told.value)
        path.write_bytes(whole)
        assert send(path.parent, None, dry_run=True)["kind"] in ("adapter", "model")


@pytest.mark.parametrize("secret", ["hf_" + "a" * 34, "-----BEGIN RSA PRIVATE KEY-----"])
def test_a_secret_in_a_text_is_refused_and_not_repeated(secret: str, adapter: Path) -> None:
    (adapter / "README.md").write_text(f"log in with {secret}")
    with pytest.raises(UsageError, match="what looks like a secret") as caught:
        pack(str(adapter))
    assert secret not in str(caught.value)


def test_links_are_refused_and_other_files_stay(adapter: Path) -> None:
    (adapter / "notes.txt").write_text("mine")
    assert pack(str(adapter)).left == ("notes.txt",)
    (adapter / "LICENSE").symlink_to(adapter.parent / "elsewhere")
    with pytest.raises(UsageError, match="a link"):
        pack(str(adapter))


def test_models_and_ggufs(run: Path, tmp_path: Path) -> None:
    parcel = pack(str(run.parent / "base"))
    assert parcel.kind == "model"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= parcel.files.keys()
    for name in ("a.gguf", "a.Modelfile", "a.md", "b.gguf"):
        (tmp_path / name).write_text(name)
    parcel = pack(str(tmp_path / "a.gguf"))
    assert (parcel.kind, [*parcel.files]) == ("gguf", ["a.gguf", "a.Modelfile", "README.md"])
    for thing in (tmp_path / "a.md", tmp_path / "none", tmp_path.parent):
        with pytest.raises(UsageError):
            pack(str(thing))


def test_the_name_must_be_owner_and_name(run: Path) -> None:
    for name in ("it", "me/it/too", "me/", "-/x"):
        with pytest.raises(UsageError, match="owner/name"):
            push(str(run), name, display=Quiet(), api=Hub())


def test_the_seam_is_the_libraries_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "t")
    api = pushing._api()
    assert isinstance(api, huggingface_hub.HfApi)
    for name, keys in {
        "create_repo": {"repo_id", "private", "exist_ok"},
        "repo_info": {"repo_id"},
        "create_commit": {"repo_id", "operations", "commit_message"},
    }.items():
        assert keys <= inspect.signature(getattr(api, name)).parameters.keys()
