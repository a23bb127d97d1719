"""The launch files: parsed, and run with stand-ins for what starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.errors import STOP_SIGNALS, ExitCode
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parents[2] / "recipes" / "launch"
SCRIPTS = sorted([*FOLDER.glob("*.sh"), *FOLDER.glob("*.sbatch")])
SLURM = sorted(FOLDER.glob("*.sbatch"))
RESUMED = {ExitCode.TIME_LIMIT, *STOP_SIGNALS.values()}
SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8},
    "data": {"train": [{"path": "train.jsonl"}]},
    "train": {"batch_size": 4, "max_steps": 40},
    "logging": {"steps": 1},
}
TOOLS = {
    "qtune": 'exec "$PYTHON" -m qtune "$@"',
    "scancel": 'kill -${1#--signal=} $(cat "$SLURM_TEST/tasks")',
    "squeue": 'cat "$SLURM_TEST/state"',
    "scontrol": 'if [ "$1" = show ]; then echo first; echo second; '
    'else echo "$*" >> "$SLURM_TEST/requeued"; fi',
    "srun": 'exec "$PYTHON" "$SLURM_TEST/srun.py" "$@"',
    "torchrun": 'printf "%s\\n" "$@"',
    "accelerate": 'printf "%s\\n" "$@"',
}
SRUN = """
import os, signal, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words.pop(0)
size = int(os.environ["SLURM_NTASKS"])
local = size // int(os.environ["SLURM_NNODES"])
tasks = [
    subprocess.Popen(
        words, env=os.environ | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task % local)}
    )
    for task in range(size)
]
with open(os.environ["SLURM_TEST"] + "/tasks", "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
signal.signal(signal.SIGTERM, lambda *_: [task.kill() for task in tasks])  # as srun does
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of stand-ins that comes first on PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, line in TOOLS.items():
        write_tool(folder / name, line)
    (folder / "srun.py").write_text(SRUN)
    (folder / "state").write_text("RUNNING\n")
    return folder


def write_tool(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/bash\n{line}\n")
    path.chmod(0o755)


def environment(tools: Path, **more: str) -> dict[str, str]:
    job = {"SLURM_JOB_NAME": "qtune", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
    tasks = {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "1"}
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    ours = {"PATH": path, "PYTHON": sys.executable, "SLURM_TEST": str(tools)}
    return os.environ | job | tasks | ours | more


def requeued(tools: Path) -> list[str]:
    file = tools / "requeued"
    return file.read_text().splitlines() if file.exists() else []


def wait_until(holds: Any) -> None:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    assert holds()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_reads_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)


def test_a_job_that_slurm_ends_goes_back_into_the_queue_and_on(tmp_path: Path, tools: Path) -> None:
    save_tiny(tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", 24)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    run = tmp_path / "runs" / "qtune-7"
    words = ["bash", str(FOLDER / "slurm.sbatch"), "recipe.yaml", "--quiet"]
    started = {"cwd": tmp_path, "env": environment(tools), "stdout": subprocess.DEVNULL}
    with subprocess.Popen(words, **started) as job:  # type: ignore[call-overload]
        wait_until(lambda: (run / "metrics.jsonl").exists() or job.poll() is not None)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=60) == 143
    assert requeued(tools) == ["requeue 7"]
    assert not (run / "adapter").exists()
    assert subprocess.run(words, timeout=120, **started).returncode == 0  # type: ignore[call-overload]
    assert requeued(tools) == ["requeue 7"]
    assert json.loads((run / "report.json").read_text())["steps"] == 40
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "learning_rate" in line]
    assert steps == list(range(1, 41))  # none twice


@pytest.mark.parametrize("script", SLURM, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("code", "state", "again"),
    [
        (0, "RUNNING", False),
        (3, "RUNNING", False),
        (9, "RUNNING", False),
        (75, "RUNNING", True),
        (143, "RUNNING", True),
        (143, "CANCELLED", False),
        (143, "COMPLETING", False),
    ],
)
def test_what_slurm_queues_again(
    tmp_path: Path, tools: Path, script: Path, code: int, state: str, again: bool
) -> None:
    write_tool(tools / "qtune", f"exit {code}")
    (tools / "state").write_text(f"{state}\n")
    words = ["bash", str(script), "recipe.yaml"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(tools), timeout=60)
    assert done.returncode == code
    assert requeued(tools) == (["requeue 7"] if again else [])


def test_each_task_of_several_machines_has_its_seat(tmp_path: Path, tools: Path) -> None:
    write_tool(
        tools / "qtune", 'env > "$SLURM_TEST/$RANK"; printf "%s\\n" "$@" > "$SLURM_TEST/words"'
    )
    words = ["bash", str(FOLDER / "slurm-nodes.sbatch"), "a b.yaml", "--set", "train.epochs=2"]
    subprocess.run(words, cwd=tmp_path, env=environment(tools), timeout=60, check=True)
    for rank in range(4):
        lines = (tools / str(rank)).read_text().splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        expected = {"WORLD_SIZE": "4", "LOCAL_RANK": str(rank % 2), "LOCAL_WORLD_SIZE": "2"}
        expected |= {"MASTER_ADDR": "first", "MASTER_PORT": "20007"}
        assert {name: found[name] for name in expected} == expected
    assert (tools / "words").read_text().splitlines() == [
        *("train", "a b.yaml", "-o", "runs/qtune-7", "--set", "checkpoint.resume=auto"),
        *("--set", "train.epochs=2"),
    ]


def test_term_reaches_every_task_and_all_may_save(tmp_path: Path, tools: Path) -> None:
    saving = (
        'trap "sleep 0.3; touch $SLURM_TEST/saved$RANK; exit 143" TERM; touch "$SLURM_TEST/up$RANK"'
    )
    write_tool(tools / "qtune", f"{saving}; while :; do sleep 0.02; done")
    words = ["bash", str(FOLDER / "slurm-nodes.sbatch"), "recipe.yaml"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment(tools)) as job:
        wait_until(lambda: all((tools / f"up{rank}").exists() for rank in range(4)))
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=60) == 143
    assert all((tools / f"saved{rank}").exists() for rank in range(4))
    assert requeued(tools) == ["requeue 7"]


@pytest.mark.parametrize("name", ["torchrun.sh", "accelerate.sh"])
def test_the_launchers_of_several_machines(tools: Path, name: str) -> None:
    more = {"MACHINES": "2", "MACHINE": "1", "FIRST": "10.0.0.1", "GPUS": "4", "PROCESSES": "8"}
    words = ["bash", str(FOLDER / name), "a b.yaml", "-o", "runs/a"]
    said = subprocess.run(
        words, env=environment(tools, **more), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[-6:] == ["-m", "qtune", "train", "a b.yaml", "-o", "runs/a"]
    assert "10.0.0.1" in said


def test_a_pod_is_replaced_where_that_can_help() -> None:
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    policy = job["spec"]["podFailurePolicy"]["rules"]
    codes = {
        rule["action"]: rule["onExitCodes"]["values"] for rule in policy if "onExitCodes" in rule
    }
    counted = {ExitCode.DONE, ExitCode.RESOURCES}
    assert set(codes["Ignore"]) == RESUMED
    assert set(codes["FailJob"]) == set(ExitCode) - RESUMED - counted
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # the policy is refused with any other
    container = pod["containers"][0]
    names = {rule["onExitCodes"]["containerName"] for rule in policy if "onExitCodes" in rule}
    assert names == {container["name"]}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_kubernetes_own_schema_takes_the_job() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    validate.validate(job, validate.latest_version(), strict=True)


@pytest.mark.parametrize(("machines", "said"), [(1, "processes"), (2, "node-rank")])
def test_skypilot_runs_on_one_machine_and_on_several(tools: Path, machines: int, said: str) -> None:
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    assert set(task["resources"]["job_recovery"]["recover_on_exit_codes"]) <= RESUMED
    write_tool(tools / "qtune", 'printf "%s\\n" "$@"')
    given = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "2", "SKYPILOT_TASK_ID": "t"}
    given |= {"SKYPILOT_NUM_NODES": str(machines), "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    words = said_by(["bash", "-euc", task["run"]], environment(tools, **given, **task["envs"]))
    assert f"--{said}" in words
    assert words[words.index("-o") + 1] == "/runs/t"
    assert machines == 1 or words[words.index("--master-addr") + 1] == "10.0.0.1"


def said_by(words: Sequence[str], environment: dict[str, str]) -> list[str]:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
