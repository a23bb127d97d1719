"""What the hub refuses, told in one line with the next step."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import errors

from qtune import hub
from qtune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kind", "said", "hint"),
    [
        (errors.HFValidationError, "neither a folder nor a hub id", "owner/name"),
        (errors.GatedRepoError, "owner/it at revision v2 is gated", "HF_TOKEN"),
        (errors.RevisionNotFoundError, "owner/it has no revision v2", "model.revision"),
        (errors.RepositoryNotFoundError, "nor on the hub", "HF_TOKEN"),
        (errors.LocalEntryNotFoundError, "not in the local cache", "hf download owner/it"),
        (errors.OfflineModeIsEnabled, "cache, and HF_HUB_OFFLINE is set", "hf download owner/it"),
        (errors.EntryNotFoundError, "holds no config.json", "adapter"),
        (OSError, "cannot be fetched", "local folder"),
    ],
)
def test_every_refusal_says_what_to_do(kind: type[Exception], said: str, hint: str) -> None:
    # some of these want an HTTP response to be made from: only their type counts here
    refusal = kind.__new__(kind)
    with pytest.raises(ModelError) as caught, hub.refusals("owner/it", "v2"):
        raise refusal
    assert said in caught.value.faults[0].message
    assert hint in caught.value.faults[0].hint


def test_a_network_that_is_open_already_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in hub.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(hub._SWITCH, "thrown", False)
    assert hub.why_offline() == ""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UsageError, match="comes too late"):
        hub.go_offline()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.go_offline()
    assert hub.why_offline() == "model.offline is set"
    assert [os.environ[name] for name in hub.OFFLINE] == ["1", "1"]


def test_a_bug_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), hub.refusals("owner/it", None):
        raise ZeroDivisionError


def test_paths_and_ids(tmp_path: Path) -> None:
    assert hub.local_folder(tmp_path) == tmp_path
    assert hub.local_folder("owner/name") is None
    assert hub.local_folder("gpt2") is None
    with pytest.raises(ModelError, match="no such folder"):
        hub.local_folder("a/b/c")
