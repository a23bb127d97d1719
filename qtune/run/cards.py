"""What the model cards tell of a run: its base, its data, its recipe, its measures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from qtune import methods
from qtune import recipe as recipes
from qtune.artefacts import read_object
from qtune.durable import write_text
from qtune.errors import QtuneError
from qtune.recipe import leaves
from qtune.recipe.paths import portable
from qtune.run.subject import resolve
from qtune.runs import model_card
from qtune.runs.model_card import Facts, Measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.methods import AdapterFile
    from qtune.recipe.sections import Recipe
    from qtune.run.subject import Subject

LOCK, REPORT, CARD = "recipe.lock.yaml", "report.json", "README.md"
OWN_TYPES = ("BOTTLENECK", "QUANTUM", "ROSA", "COMBINATION", "SELECTIVE")
"""Adapter types that PEFT does not know."""


def facts_of(subject: Subject, folder: Path | None = None) -> Facts:
    """The facts of a subject; `folder` is its base's, where the licence may stand."""
    asked = subject.recipe
    local = Path(subject.model.name_or_path).is_dir()
    where = folder or (Path(subject.model.name_or_path) if local else None)
    if asked is None or subject.run is None:
        return Facts(subject.base_name, not local, licence_of(where))
    measures, rows = _measures(subject.run)
    return Facts(
        base=subject.base_name,
        base_on_hub=not local,
        licence=licence_of(where),
        data=tuple(_data(asked, subject.run)),
        recipe=summary(subject.base_name, asked),
        measures=measures,
        rows=rows,
    )


def about(subject: Subject, folder: Path) -> dict[str, str]:
    """The text fields of a GGUF file's head."""
    on_hub = not Path(subject.model.name_or_path).is_dir()
    told = {"name": subject.name, "license": licence_of(folder) or ""}
    if subject.adapter is not None:
        told["base"] = subject.base_name
        if on_hub:
            told["base_url"] = f"https://huggingface.co/{subject.base_name}"
    return told


def gguf_card(subject: Subject, folder: Path, report: Mapping[str, Any], *, name: str) -> str:
    """The card of a GGUF file, of a model or of a LoRA."""
    lora = report["format"] == "gguf-lora"
    what = "A LoRA" if lora else "A model" if subject.adapter is None else "A fine-tuned model"
    opening = [
        f"{what} of the architecture {report['architecture']} as GGUF, for llama.cpp and Ollama: "
        f"{report['tensors']} tensors in {report['dtype']}, {report['bytes'] / 1e6:,.1f} MB.",
        _checked(report),
    ]
    stem = name.removesuffix(".gguf")
    made = "Modelfile" if name in ("model.gguf", "lora.gguf") else f"{stem}.Modelfile"
    command = f"llama-cli -m base.gguf --lora {name}" if lora else f"llama-cli -m {name}"
    return model_card.card(
        facts_of(subject, folder),
        name=subject.name,
        library="gguf",
        relation="adapter" if lora else "quantized",
        pipeline="text-generation",
        opening=opening,
        use=["```sh", command, f"ollama create {stem} -f {made}", "```"],
        tags=["gguf", "lora"] if lora else ["gguf"],
    )


def of_adapter(adapter: AdapterFile, thing: str) -> str:
    """The card of an adapter folder; `thing` is what a person named, a run or the folder."""
    try:
        subject = resolve(thing)
    except QtuneError:  # a lone adapter is told of without its base, too
        subject = None
    kind = str(adapter.raw["peft_type"])
    name = adapter.facts.get("method") or adapter.config.name
    base = subject.base_name if subject is not None else adapter.base_model or "its base"
    rank = getattr(adapter.config, "rank", None)
    numbers = sum(tensor.numel() for tensor in adapter.tensors.values())
    of = f" of rank {rank}" if rank else ""
    return model_card.card(
        facts_of(subject) if subject is not None else Facts(base),
        name=f"{base}, adapter",
        library="qtune" if kind in OWN_TYPES else "peft",
        relation="adapter",
        pipeline=_pipeline(subject),
        opening=[f"An adapter on {base}: {name}{of}, {numbers:,} numbers, trained by qtune."],
        use=_adapter_use(base, kind, _pipeline(subject)),
        tags=["lora"] if kind == "LORA" else [],
    )


def leave_beside(adapter: Path) -> None:
    """The card of a run's finished adapter, in its folder."""
    write_text(adapter / CARD, of_adapter(methods.read(adapter), str(adapter)))


def _pipeline(subject: Subject | None) -> str:
    """The hub's name of the task."""
    task = subject.model.task if subject is not None else ""
    return "text-classification" if task == "classification" else "text-generation"


def _adapter_use(base: str, kind: str, pipeline: str) -> list[str]:
    if kind in OWN_TYPES:
        return ["Only qtune reads this kind of adapter: `qtune generate FOLDER --prompt TEXT`."]
    head = "SequenceClassification" if pipeline == "text-classification" else "CausalLM"
    return [
        "```python",
        "from peft import PeftModel",
        f"from transformers import AutoModelFor{head}",
        "",
        f'base = AutoModelFor{head}.from_pretrained("{base}")',
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "```",
    ]


def licence_of(folder: Path | None) -> str | None:
    """The licence that a model's own card names, or None."""
    path = folder / "README.md" if folder is not None else None
    if path is None or not path.is_file():
        return None
    parts = path.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        found = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    named = found.get("license") if isinstance(found, dict) else None
    return named if isinstance(named, str) else None


def summary(base: str, asked: Recipe) -> dict[str, Any]:
    """The keys of a recipe that say what was done, with their values."""
    told = {
        "base": base,
        **{f"quantization.{key}": value for key, value in asked.quantization},
        **{key: value for key, value in leaves(asked) if key.startswith("method.")},
        "optim.name": asked.optim.name,
        "optim.learning_rate": asked.optim.learning_rate,
        "train.batch_size": asked.train.batch_size,
        "train.num_train_epochs": asked.train.num_train_epochs,
        "train.max_steps": asked.train.max_steps,
        "train.seed": asked.train.seed,
    }
    known = {key: value for key, value in told.items() if value not in (None, (), {})}
    cut: dict[str, Any] = portable(known)
    return cut


def _data(asked: Recipe, run: Path) -> list[tuple[str, str, str]]:
    """(file, rows used, sha256) of each source; what is not known is empty."""
    hashes: dict[str, str] = {}
    if (run / LOCK).is_file():
        try:
            hashes = dict(recipes.load(run / LOCK).recipe.pins.data)
        except QtuneError:
            hashes = {}  # a card without hashes is better than none
    counts = _report(run).get("data", {})
    found = []
    for part in ("train", "eval"):
        told = (counts.get(part) or {}).get("sources", [])
        for number, source in enumerate(getattr(asked.data, part)):
            rows = told[number].get("rows_used") if number < len(told) else None
            name = Path(source.path).name if Path(source.path).is_absolute() else source.path
            shown = f"{rows:,}" if isinstance(rows, int) else ""
            found.append((f"{part}: {name}", shown, hashes.get(f"{part}.{number}", "")))
    return found


def _report(run: Path) -> dict[str, Any]:
    path = run / REPORT
    return read_object(path) if path.is_file() else {}


def _measures(run: Path) -> tuple[tuple[Measure, ...], int | None]:
    """Those of the newest `qtune eval`, with intervals; else those of training's evaluations."""
    files = sorted(run.glob("eval*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(files):
        content = read_object(path)
        side = content.get("adapter") or content.get("model")
        if isinstance(side, dict):
            base = content.get("base")
            measures = tuple(_sided(side, base if isinstance(base, dict) else {}))
            rows = content.get("rows")
            return measures, rows if isinstance(rows, int) else None
    report = _report(run)
    records = {record["step"]: record for record in report.get("evaluations", ())}
    base, own = records.get(0, {}), records.get(report.get("adapter_step"), {})
    found = [
        Measure(name, float(value), base=base.get(name))
        for name, value in own.items()
        if name != "step" and isinstance(value, int | float)
    ]
    tasks = report.get("tasks", {})
    sides = [{"tasks": tasks.get(side)} for side in ("adapter", "base")]
    return (*found, *_sided(*sides)), None


def _sided(side: Mapping[str, Any], base: Mapping[str, Any]) -> list[Measure]:
    """The figures of one side of `qtune eval` that have bounds, those of its answers too."""
    ours, theirs = _flat(side), _flat(base)
    return [
        Measure(name, float(value), ours[f"{name}_low"], ours[f"{name}_high"], theirs.get(name))
        for name, value in ours.items()
        if f"{name}_low" in ours and isinstance(value, int | float)
    ]


def _flat(side: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of a side by one name each, those of answers and of tasks too."""
    answers, tasks = side.get("answers"), side.get("tasks")
    found = {**side, **(answers if isinstance(answers, dict) else {})}
    for task, figures in (tasks if isinstance(tasks, dict) else {}).items():
        if isinstance(figures, dict):
            found |= {f"{task}.{name}": value for name, value in figures.items()}
    return found


def _checked(report: Mapping[str, Any]) -> str:
    """How well the file was compared, in a sentence or two."""
    found = report["verification"]
    equal = "lies within the rounding of q8_0" if report["dtype"] == "q8_0" else "is equal"
    if found is None:
        return f"Every tensor was read back and {equal}; logits were not compared."
    return (
        f"Every tensor was read back and {equal}. Against the model itself, over "
        f"{found['positions']} positions: mean KL {found['kl']:.2e} nats per token, top-1 "
        f"agreement {100 * found['top1']:.2f} %."
    )
