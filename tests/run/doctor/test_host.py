"""The machine around the device."""

from __future__ import annotations

import os
import resource
import shutil
import urllib.error
import urllib.request
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from qtune.run.doctor import host, hub_access, versions

Usage = namedtuple("Usage", "total used free")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    found = versions.check_package("bitsandbytes")
    assert (found.state, found.said) == ("fault", "not installed")
    assert found.advice.startswith('pip install "bitsandbytes')


@pytest.mark.parametrize(
    ("version", "state"),
    [("0.1", "fault"), ("2.13.1+cu128", "ok"), ("2.12.0", "ok"), ("9.0", "warning")],
)
def test_versions_against_the_needed_and_the_tested(
    monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2.10", "x>=1; extra == 'dev'"])
    assert versions.check_package("torch").state == state


def test_of_a_stale_install_the_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: None)
    assert versions.needed("torch") == "torch"


@pytest.mark.parametrize(("free", "state"), [(10**9, "fault"), (10**10, "warning"), (10**12, "ok")])
def test_room_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**13, 0, free))
    monkeypatch.setattr(host, "write_speed", lambda _: 1e9)
    assert host.check_disk("disk", tmp_path / "not" / "yet").state == state


def test_a_slow_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**13, 0, 10**12))
    monkeypatch.setattr(host, "write_speed", lambda _: 1e6)
    found = host.check_disk("disk", tmp_path)
    assert (found.state, "local disk" in found.advice) == ("warning", True)


def test_a_disk_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert host.check_disk("disk", tmp_path).state == "fault"


def test_the_speed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "WRITTEN", 2**21)
    assert host.write_speed(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**26, 0, 2**20))
    assert "--shm-size" in host.check_shared_memory(tmp_path).advice
    assert host.check_shared_memory(tmp_path / "none").state == "ok"


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    found = host.check_cores()
    assert (found.state, "set it to 2" in found.advice) == ("warning", True)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert host.check_cores().state == "ok"


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: 256, resource.RLIMIT_AS: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], 0))
    assert "ulimit -n" in host.check_limits().advice
    limits[resource.RLIMIT_AS] = 10**9
    assert "ulimit -v" in host.check_limits().advice


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "host_memory", lambda: (10**9, "left of a limit"))
    assert host.check_memory().state == "warning"


def test_a_cache_is_counted(tmp_path: Path) -> None:
    assert host.check_cache("models", tmp_path / "none").said.endswith("nothing yet")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 2048)
    assert host.check_cache("models", tmp_path).said.endswith("in 1 file")
    assert "over " in host.check_cache("models", tmp_path, seconds=-1.0).said


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "_token", lambda: "hf_secret")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub_access.hub, "why_offline", lambda: "")
    for status, state in ((200, "ok"), (401, "warning"), (503, "warning")):
        monkeypatch.setattr(hub_access, "ask", lambda *_, status=status: status)
        found = hub_access.check_hub()
        assert found.state == state
        assert "hf_secret" not in found.said + found.advice

    def unreachable(*_: object) -> int:
        raise urllib.error.URLError(TimeoutError("timed out"))

    monkeypatch.setattr(hub_access, "ask", unreachable)
    found = hub_access.check_hub()
    assert (found.state, found.said) == ("warning", "no answer: TimeoutError: timed out")


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_access.check_hub().state == "ok"


def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access.hub, "why_offline", lambda: "")
    monkeypatch.setattr(hub_access, "_token", lambda: None)
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert "is no address" in hub_access.check_hub().said
