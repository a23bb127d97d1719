"""The speed benchmarks run on a tiny model, and their figures are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPTS = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> ModuleType:
        from importlib import import_module

        return import_module(name)

    return load


@pytest.fixture
def job(script: Any, made: Path) -> Any:
    """Two steps of the tiny model, which is written once."""
    workload = script("workload")
    size = workload.SIZES["tiny"]
    workload.write(made / "tiny", size, rows=64)
    return script("contestants").Job(made / "tiny", size, 2)


@pytest.mark.filterwarnings("ignore")  # of what peers call
def test_qtune_and_the_plain_loop_learn_the_same(script: Any, job: Any) -> None:
    pytest.importorskip("peft")
    contestants = script("contestants")
    losses = {}
    for name in ("qtune", "plain"):
        ticks = contestants.Ticks()
        contestants.CONTESTANTS[name](job, ticks)
        losses[name] = ticks.losses
        assert len(ticks.losses) == len(ticks.seconds) == len(ticks.cpu_seconds) == 2
    assert losses["plain"][0] != losses["plain"][1]
    assert losses["qtune"] == pytest.approx(losses["plain"], rel=1e-3)


@pytest.mark.filterwarnings("ignore")  # of what peers call
def test_trl_learns_the_same_too(script: Any, job: Any) -> None:
    pytest.importorskip("trl")
    contestants = script("contestants")
    losses = {}
    for name in ("trl", "trl-bf16", "trl-tuned", "plain"):
        ticks = contestants.Ticks()
        contestants.CONTESTANTS[name](job, ticks)
        losses[name] = ticks.losses
    assert losses["trl"] == pytest.approx(losses["plain"], rel=1e-3)
    assert losses["trl-bf16"] == pytest.approx(losses["plain"], rel=1e-3)
    assert losses["trl-tuned"] == pytest.approx(losses["plain"], rel=1e-3)


def test_runs_are_kept_told_and_gone_on_with(
    script: Any, job: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = script("vs_peers")
    output, picture = job.folder / "peers.json", job.folder / "peers.svg"
    given = ["vs_peers.py", "--size", "tiny", "--steps", "2", "--contestants", "matmul"]
    given += ["--folder", str(job.folder.parent), "--output", str(output)]
    monkeypatch.setattr("sys.argv", [*given, "--picture", str(picture)])
    peers.main()
    assert "limit (4N)" in capsys.readouterr().out
    one = json.loads(output.read_text())["sizes"]["tiny"]
    seconds = one["runs"][0]["seconds"][1]
    speed = one["counts"]["tokens"][1] / seconds
    assert one["summary"]["matmul"]["tokens_per_second"] == pytest.approx(speed, rel=1e-3)
    assert picture.read_text().startswith("<?xml")
    monkeypatch.setattr("sys.argv", [*given, "--resume", "--repeats", "1"])
    peers.main()
    assert json.loads(output.read_text())["sizes"]["tiny"]["runs"] == one["runs"]


def test_the_parts_of_a_step_make_a_whole(
    script: Any, job: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = job.folder / "profile.json"
    given = ["step_profile.py", "--size", "tiny", "--steps", "1", "--warm", "1"]
    given += ["--folder", str(job.folder.parent), "--output", str(output)]
    picture = job.folder / "profile.svg"
    monkeypatch.setattr("sys.argv", [*given, "--kernels", "fused", "--picture", str(picture)])
    script("step_profile").main()
    parts = json.loads(output.read_text())["fused"]["parts"]
    assert "optimizer" in picture.read_text()
    assert sum(parts.values()) == pytest.approx(1.0, abs=0.02)
    needed = ("dequantise", "base matmul", "adapter matmul", "head + loss", "optimizer")
    assert all(parts[name] > 0 for name in needed), parts
    assert "base matmul" in capsys.readouterr().out


def test_a_peer_that_is_absent_or_fails_is_told(script: Any, tmp_path: Path) -> None:
    peers = script("vs_peers")
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\necho an error of its own >&2\nexit 1\n")
    empty.chmod(0o755)
    assert peers.missing("unsloth", str(empty)) == "unsloth is not installed"
    assert peers.missing("qtune", str(empty)) is None
    assert "No such file" in peers.missing("trl", str(tmp_path / "absent"))
    assert peers.run("trl", {}, str(empty)) == {"failed": "an error of its own"}


def test_ratios_are_against_the_defaults_of_trl_and_leave_out_the_warm_steps(script: Any) -> None:
    def made(name: str, repeat: int, second: float, megabytes: int, loss: float) -> dict[str, Any]:
        return {
            "contestant": name,
            "repeat": repeat,
            "seconds": [100.0, second, second],
            "peak_bytes": megabytes * 10**6,
            "training_peak_bytes": None,
            "whole_seconds": 1.0,
            "losses": [loss, loss],
        }

    runs = [
        made("trl", 1, 8.0, 900, 2.0),
        made("trl", 2, 24.0, 900, 2.0),
        made("trl", 3, 10.0, 900, 2.0),
        made("qtune", 1, 1.0, 300, 2.003),
        made("qtune", 2, 3.0, 100, 2.003),
        made("qtune", 3, 2.0, 200, 2.003),
        made("plain", 1, 4.0, 500, 2.0),
        {"contestant": "unsloth", "repeat": 1, "failed": "no GPU"},
    ]
    counted = {"tokens": [999, 10, 30], "supervised": [999, 4, 4], "padded": [999, 20, 40]}
    one = {"runs": runs, "counts": counted, "warm": 1, "clock": "seconds"}
    summary = script("peer_table").summarise(one)
    assert summary["qtune"]["tokens_per_second"] == 10.0
    assert summary["qtune"]["supervised_per_second"] == 2.0
    assert summary["qtune"]["speed_to_trl"] == 8.0  # of 8, 8 and 5
    assert summary["qtune"]["peak_to_trl"] == pytest.approx(200 / 900, abs=1e-3)
    assert not summary["qtune"]["losses_agree"]
    assert summary["trl"]["losses_agree"]
    assert summary["unsloth"] == {"failed": "no GPU"}


@pytest.mark.parametrize(
    ("name", "shapes", "above", "part"),
    [
        ("aten::mm", [[10, 64], [64, 64]], set(), "base matmul"),
        ("aten::mm", [[10, 64], [64, 16]], set(), "adapter matmul"),
        ("aten::mm", [[10, 64], [64, 48]], set(), "adapter matmul"),
        ("aten::mm", [[10, 64], [64, 512]], set(), "head + loss"),
        ("aten::bmm", [[4, 10, 16], [4, 16, 10]], set(), "attention"),
        ("aten::mul", [[10, 64], []], {"Optimizer.step#AdamW.step"}, "optimizer"),
        ("aten::copy_", [[10, 64], [10, 64]], set(), "copies and casts"),
        ("bitsandbytes::dequantize_4bit", [[32, 1]], set(), "dequantise"),
        ("aten::stack", [], {"bench::loader"}, "loader"),
        ("aten::mul", [[10, 64]], set(), "element-wise"),
    ],
)
def test_operators_are_sorted_by_what_they_work_on(
    script: Any, name: str, shapes: list[Any], above: set[str], part: str
) -> None:
    profile, sizes = script("step_profile"), script("workload").SIZES
    assert profile.part_of(name, shapes, above, sizes["tiny"]) == part


def test_the_ceiling_of_an_op_is_its_frozen_products(script: Any) -> None:
    ops, size = script("ops"), script("workload").SIZES["tiny"]
    for name, make in ops.CASES.items():
        case = make(size, 32)
        result = ops.measure(case, 32, rounds=1)
        assert result["plain_ms"] > 0
        assert result["fused_ms"] > 0, name
        fused, plain = (form().detach().float().abs().sum() for form in (case.fused, case.plain))
        assert fused.item() == pytest.approx(plain.item(), rel=0.02), name
        assert ("ceiling_ms" in result) == (not name.startswith(("attention", "RMSNorm")))
    case = ops.CASES["gated MLP"](size, 16)
    assert sum(n * m for n, m, _ in case.weights) == 3 * size.hidden * size.mlp
    assert sum(n * m for n, m in size.linears().values()) * size.layers == size.parameters
