"""Tasks in `qtune eval`: four columns, predictions, going on after an end, and strict files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qtune.errors import ModelError, UsageError
from qtune.recipe.tasks import load_task
from qtune.run.bench import Limits
from qtune.run.columns import beside
from qtune.run.display import Quiet
from qtune.run.eval import evaluate
from qtune.run.merge import merge
from qtune.run.subject import resolve
from tests.run.made_run import make_run

GENERATE = """\
kind: generate
data: {path: ../test.jsonl}
measures: [exact_match, token_f1, numeric, stopped]
max_new_tokens: 4
"""
CHOICES = """\
kind: choices
data: {path: arc.jsonl}
"""


class Told(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("tasks"))
    tasks = run.parent / "tasks"
    tasks.mkdir()
    (tasks / "said.yaml").write_text(GENERATE)
    (tasks / "arc.yaml").write_text(CHOICES)
    (tasks / "nats.yaml").write_text("kind: loss\ndata: {path: ../test.jsonl}\n")
    (tasks / "own.yaml").write_text(
        "kind: loss\ndata: {path: ../test.jsonl}\nprompt: '{prompt}'\nanswer: '{completion}'\n"
    )
    rows = [{"query": f"q{n}", "choices": ["a", "bb", "c"], "gold": n % 3} for n in range(7)]
    (tasks / "arc.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run


def ask(run: Path, *tasks: str, **limits: Any) -> dict[str, Any]:
    files = tuple(str(run.parent / "tasks" / f"{task}.yaml") for task in tasks)
    return evaluate(str(run), limits=Limits(tasks=files, **limits), display=Quiet())


def newest(run: Path) -> Path:
    return max(run.glob("eval*.predictions.jsonl"), key=lambda path: path.stat().st_mtime_ns)


def test_four_columns_tell_quantising_and_tuning_apart(run: Path, tmp_path: Path) -> None:
    merge(str(run), tmp_path / "merged", verify=False, display=Quiet())
    report = ask(run, "said", "arc", "nats", base16=True, merged=str(tmp_path / "merged"))
    losses = {side: report[side]["tasks"]["nats"]["loss"] for side in ("base16", "base", "adapter")}
    assert len(set(losses.values())) == 3
    merged = report["merged"]["tasks"]
    assert merged["nats"]["loss"] == pytest.approx(losses["adapter"], abs=1e-5)
    assert merged["arc"] == report["adapter"]["tasks"]["arc"]
    steps = report["comparisons"]
    assert steps.keys() == {"quantization", "tuning", "merge"}
    cost = steps["quantization"]["tasks"]["nats"]
    assert cost["loss"] == pytest.approx(losses["base"] - losses["base16"])
    assert cost["loss_low"] <= cost["loss"] <= cost["loss_high"]
    gain = steps["tuning"]["tasks"]["nats"]
    assert gain["loss"] == pytest.approx(losses["adapter"] - losses["base"])
    assert 0 < gain["loss_p"] <= 1
    assert steps["merge"]["tasks"]["arc"]["accuracy"] == 0.0
    assert report["difference"] == steps["tuning"]
    json.dumps(report, allow_nan=False)


def test_a_model_merged_of_another_adapter_or_base_is_refused(run: Path, tmp_path: Path) -> None:
    merge(str(run), tmp_path / "merged", verify=False, display=Quiet())
    display = Told()
    record = tmp_path / "merged" / "qtune_merge.json"
    noted = json.loads(record.read_text())
    for part in ("adapter", "base"):
        others = noted["made_of"] | {part: "0" * 64}
        record.write_text(json.dumps(noted | {"made_of": others}))
        with pytest.raises(
            ModelError, match=rf"another {part} \(0{{12}}\) than that of run"
        ) as told:
            beside(resolve(str(run)), Limits(merged=str(tmp_path / "merged")), display)
        assert told.value.code == 4
    assert not display.lines
    beside(resolve(str(run)), Limits(merged=str(run.parent / "base")), display)
    assert display.lines == ["base holds no record that it is a merge of run"]


def test_predictions_are_kept_with_their_measures(run: Path) -> None:
    report = ask(run, "said", "arc")
    lines = [json.loads(line) for line in newest(run).read_text().splitlines()]
    said = [line for line in lines if line["task"] == "said" and line["side"] == "adapter"]
    assert len(said) == 9
    assert said[0].keys() >= {"prompt", "reference", "text", "stopped", "measures"}
    mean = sum(line["measures"]["token_f1"] for line in said) / 9
    assert report["adapter"]["tasks"]["said"]["token_f1"] == pytest.approx(mean, abs=1e-6)
    chosen = [line for line in lines if line["task"] == "arc" and line["side"] == "base"]
    right = sum(line["measures"]["right"] for line in chosen) / 7
    assert report["base"]["tasks"]["arc"]["accuracy"] == pytest.approx(right)
    assert not list(run.glob("*.partial.jsonl"))


def test_an_interrupted_evaluation_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask(run, "said", "arc")
    calls = 0
    from qtune.evaluation import answers

    plain = answers._batch

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(answers, "_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(run, "said", "arc")
    [partial] = run.glob("*.partial.jsonl")
    assert len(partial.read_text().splitlines()) == 8
    with partial.open("a") as stream:
        stream.write('{"side": "adapter", "ta')  # torn by a power failure
    asked: list[int] = []
    monkeypatch.setattr(
        answers, "_batch", lambda *arguments: asked.append(len(arguments[2])) or plain(*arguments)
    )
    again = ask(run, "said", "arc")
    assert asked == [1, 8, 1]  # what was left of the adapter's, then the base's
    for side in ("adapter", "base"):
        assert again[side] == whole[side]
    assert not list(run.glob("*.partial.jsonl"))


def test_a_prompt_of_its_own_gives_the_same_loss_less_the_end_token(run: Path) -> None:
    report = ask(run, "own", "nats")
    tasks = report["adapter"]["tasks"]
    assert tasks["own"]["rows"] == tasks["nats"]["rows"] == 9
    assert tasks["own"]["loss"] != tasks["nats"]["loss"]


def test_a_model_without_a_recipe_is_asked_tasks(run: Path, tmp_path: Path) -> None:
    report = evaluate(
        str(run.parent / "base"),
        limits=Limits(tasks=(str(run.parent / "tasks" / "arc.yaml"),)),
        output=tmp_path / "r.json",
        display=Quiet(),
    )
    assert report["model"]["tasks"]["arc"]["rows"] == 7
    assert (tmp_path / "r.predictions.jsonl").is_file()


def test_a_prompt_that_does_not_fit_is_cut_and_told(run: Path, tmp_path: Path) -> None:
    rows = [{"q": "x" * 300, "a": "y"}, {"q": "short", "a": "z"}]  # the context is 256 bytes
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = tmp_path / "long.yaml"
    task.write_text(
        "kind: generate\ndata: {path: rows.jsonl}\nprompt: '{q}'\nanswer: '{a}'\n"
        "max_new_tokens: 5\n"
    )
    output = tmp_path / "r.json"
    limits = Limits(tasks=(str(task),))
    display = Told()
    evaluate(str(run.parent / "base"), limits=limits, output=output, display=display)
    assert [line for line in display.lines if "long" in line] == [
        "long: 1 of 2 prompts are longer than the model's context: cut at the left"
    ]
    lines = (tmp_path / "r.predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["text"]


def test_what_is_told_before_weights_load(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtune.run.eval.load", None)
    task = run.parent / "tasks" / "odd.yaml"
    task.write_text(GENERATE.replace("exact_match", "bleu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"sacrebleu.*qtune\[eval\]"):
        ask(run, "odd")
    task.write_text(GENERATE + "cache: quantized\n")
    with pytest.raises(UsageError, match="pip install optimum-quanto"):
        ask(run, "odd")
    with pytest.raises(UsageError, match="stand beside"):
        evaluate(
            str(run.parent / "base"), limits=Limits(base16=True, tasks=("x",)), display=Quiet()
        )
    with pytest.raises(UsageError, match="no merged model"):
        ask(run, "arc", merged=str(run))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kind: genrate\ndata: {path: x}", r":1: kind: 'genrate' is not .*generate\?"),
        ("kind: loss\ndata: {pth: x}", r":2: data.pth: unknown key \(did you mean path\?\)"),
        ("kind: loss\ndata: {path: x}\nmesures: [bleu]", r":3: mesures: unknown key .*measures"),
        ("kind: loss", r"data: missing"),
        ("kind: generate\ndata: {path: x}\nmeasures: [blue]", r":3: measures: 'blue' .*bleu"),
        ("kind: loss\ndata: {path: x}\nmeasures: [bleu]", r":3: measures: nothing would read"),
        ("kind: generate\ndata: {path: x}\nprompt: '{q}'", r":3: prompt: needs answer"),
        ("kind: generate\ndata: {path: x}\nshots: 2", r":3: shots: nothing would read it without"),
        ("kind: choices\ndata: {path: x}\nshots: 2", r":3: shots: needs shots_from"),
        ("kind: choices\ndata: {path: x}\nanswer: ' A'", r":3: answer: names no \{choice\}"),
        ("kind: classify\ndata: {path: x}", r":1: kind: classify needs two labels"),
        ("kind: generate\ndata: {path: x}\nmeasures: [pattern]", r":3: measures: pattern needs"),
        ("kind: generate\ndata: {path: x}\npattern: '('", r":3: pattern: .*regular expression"),
        ("- a", "a task is a table of keys"),
    ],
)
def test_task_files_are_strict(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UsageError, match=fault):
        load_task(tmp_path / "t.yaml")
