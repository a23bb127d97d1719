"""A million short rows: qtune's preparation against a plain loop of `datasets`.

    python scripts/bench/data.py [--rows 1000000] [--small 100000]

Both tokenise the same jsonl file with the same tokenizer, a byte-level BPE trained here, and mask
the prompts: qtune checks every row first and keeps the encoded rows by content, the loop is
`load_dataset("json")` and a batched `map`. Each runs in a process of its own; the clock starts when
the libraries are loaded, and the parent samples the child's resident memory from then on. The
tokens of both are counted and must be the same. Then what qtune alone does: the packing of an
epoch, a second start, and the first rows of a streamed run, whose memory knows no number of rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).with_name("data.json")
BATCH_SIZE = 256
STREAMED_STEPS = 300
EVERY_SECONDS = 0.02
IGNORED = -100


def write_rows(path: Path, count: int) -> None:
    """Questions and answers of made-up words, lengths spread as those of short chats are."""
    generator = random.Random(0)
    letters = "etaoinshrdlucmfw"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(5000)]
    with path.open("w") as stream:
        for _ in range(count):
            asked, answered = (min(60, int(generator.expovariate(1 / 8)) + 2) for _ in range(2))
            row = {
                "prompt": " ".join(generator.choices(words, k=asked)) + "?\n",
                "completion": " ".join(generator.choices(words, k=answered)),
            }
            stream.write(json.dumps(row) + "\n")


def write_tokenizer(folder: Path, rows: Path) -> None:
    """A BPE tokenizer of 4,000 tokens, trained on the first rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with rows.open() as stream:
        texts = [json.loads(stream.readline())["prompt"] for _ in range(2000)]
    tokenizer.train_from_iterator(texts, trainer)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def _recipe(folder: Path, rows: Path) -> Any:
    from qtune.recipe.inputs import DataSection, ModelSection, SourceSection
    from qtune.recipe.sections import Recipe
    from qtune.recipe.steps import TrainSection

    return Recipe(
        model=ModelSection(name_or_path=str(folder)),
        data=DataSection(
            train=(SourceSection(path=str(rows)),),
            max_length=512,
            packing=True,
            cache_dir=str(folder / "cache"),
        ),
        train=TrainSection(batch_size=BATCH_SIZE),
    )


def run_qtune(folder: Path, rows: Path) -> dict[str, Any]:
    """Check, encode and keep all rows, or take them from the cache."""
    from qtune.data import prepare
    from qtune.data.feed import make_feed

    tokenizer = _tokenizer(folder)
    asked = _recipe(folder, rows)
    clock = Clock()
    prepared = prepare(asked, tokenizer)
    seconds = clock.read()
    counts = prepared.train.to_dict()
    started = time.perf_counter()
    fill = make_feed(asked, prepared.train, micro_batch_size=8, pad_id=2).fill()
    return {
        **seconds,
        "tokens": counts["tokens"],
        "supervised": counts["supervised_tokens"],
        "packing_seconds": time.perf_counter() - started,
        "packing_fill": round(fill, 4),
    }


def run_stream(folder: Path, rows: Path) -> dict[str, Any]:
    """The first rows as a streamed run takes them: read, encoded, shuffled, packed, collated."""
    from qtune.data import prepare_stream
    from qtune.data.feed import make_feed

    tokenizer = _tokenizer(folder)
    asked = _recipe(folder, rows)
    data = asked.data.model_copy(update={"streaming": True})
    train = asked.train.model_copy(update={"max_steps": STREAMED_STEPS})
    asked = asked.model_copy(update={"data": data, "train": train})
    clock = Clock()
    stream = prepare_stream(asked, tokenizer).train
    feed = make_feed(asked, stream, micro_batch_size=8, pad_id=2)
    taken = 0
    first = 0.0
    for step in feed.steps(STREAMED_STEPS):
        first = first or clock.read()["seconds"]
        taken += sum(len(batch.places) for batch in step)
    return {**clock.read(), "rows": taken, "first_step_seconds": first}


def run_datasets(folder: Path, rows: Path) -> dict[str, Any]:
    """The plain loop: load the file, map a tokenising function over batches."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = _tokenizer(folder)

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        prompts = tokenizer(batch["prompt"], add_special_tokens=False)["input_ids"]
        answers = tokenizer(batch["completion"], add_special_tokens=False)["input_ids"]
        end = [tokenizer.eos_token_id]
        pairs = list(zip(prompts, answers, strict=True))
        return {
            "input_ids": [prompt + answer + end for prompt, answer in pairs],
            "labels": [[IGNORED] * len(prompt) + answer + end for prompt, answer in pairs],
        }

    clock = Clock()
    loaded = datasets.load_dataset(
        "json", data_files=str(rows), split="train", cache_dir=str(folder / "datasets")
    )
    mapped = loaded.map(encode, batched=True, remove_columns=loaded.column_names)
    seconds = clock.read()
    tokens = supervised = 0
    for batch in mapped.with_format("numpy").iter(batch_size=10_000):
        tokens += sum(len(ids) for ids in batch["input_ids"])
        supervised += sum(int((labels != IGNORED).sum()) for labels in batch["labels"])
    return {**seconds, "tokens": tokens, "supervised": supervised}


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tokenizer")


class Clock:
    """Tells the parent that the libraries are loaded, and starts."""

    def __init__(self) -> None:
        print("ready", flush=True)
        self._started, self._own = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Seconds since then, by the wall and of the processor, which a busy machine shares out."""
        return {
            "seconds": time.perf_counter() - self._started,
            "cpu_seconds": time.process_time() - self._own,
        }


def _resident(process: int) -> tuple[int, int]:
    """Bytes of a process: its own, and all that is resident, mapped files included."""
    values = {}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(("RssAnon:", "VmRSS:")):
            name, kilobytes = line.split()[:2]
            values[name] = int(kilobytes) * 1024
    return values.get("RssAnon:", 0), values.get("VmRSS:", 0)


def measure(what: str, folder: Path, rows: Path) -> dict[str, Any]:
    """Run one side in a fresh process and sample its memory until its result is there."""
    command = [sys.executable, __file__, "--child", what, str(folder), str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        output = child.stdout or ()
        next((line for line in output if line == "ready\n"), None)
        before, _ = _resident(child.pid)
        most = most_all = before
        while child.poll() is None:
            own, everything = _resident(child.pid)
            most, most_all = max(most, own), max(most_all, everything)
            time.sleep(EVERY_SECONDS)
        lines = list(output)
    if child.returncode:
        raise SystemExit(f"{what} failed")
    result: dict[str, Any] = json.loads(lines[-1])
    return result | {
        "peak_growth_mb": round((most - before) / 1e6, 1),
        "peak_resident_mb": round(most_all / 1e6, 1),
    }


def _side(result: dict[str, Any], rows: int) -> dict[str, Any]:
    seconds = result["seconds"]
    return {
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "cpu_seconds": round(result["cpu_seconds"], 2),
        "rows_per_cpu_second": round(rows / result["cpu_seconds"]),
        "peak_growth_mb": result["peak_growth_mb"],
        "peak_resident_mb": result["peak_resident_mb"],
    }


def compare(folder: Path, count: int) -> dict[str, Any]:
    """Both sides on `count` rows, then qtune's packing and its second start."""
    rows = folder / f"rows-{count}.jsonl"
    write_rows(rows, count)
    if not (folder / "tokenizer").exists():
        write_tokenizer(folder / "tokenizer", rows)
    own = measure("qtune", folder, rows)
    plain = measure("datasets", folder, rows)
    again = measure("qtune", folder, rows)
    streamed = measure("stream", folder, rows)
    for name in ("tokens", "supervised"):
        if not own[name] == plain[name] == again[name]:
            raise SystemExit(f"{name} differ: {own[name]}, {plain[name]}, {again[name]}")
    size = rows.stat().st_size
    rows.unlink()
    return {
        "rows": count,
        "file_mb": round(size / 1e6, 1),
        "tokens": own["tokens"],
        "learnt_tokens": own["supervised"],
        "qtune": _side(own, count),
        "datasets_map": _side(plain, count),
        "ratio": round(plain["seconds"] / own["seconds"], 2),
        "ratio_of_cpu_seconds": round(plain["cpu_seconds"] / own["cpu_seconds"], 2),
        "packing": {
            "seconds": round(own["packing_seconds"], 2),
            "rows_a_step": BATCH_SIZE,
            "fill": own["packing_fill"],
        },
        "second_start_seconds": round(again["seconds"], 3),
        "streamed": {
            "rows": streamed["rows"],
            "first_step_seconds": round(streamed["first_step_seconds"], 2),
            **_side(streamed, streamed["rows"]),
        },
    }


def main() -> None:
    """Compare on many and on few rows and write what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "FOLDER", "ROWS"))
    arguments = parser.parse_args()
    if arguments.child:
        what, folder, rows = arguments.child
        side = {"qtune": run_qtune, "datasets": run_datasets, "stream": run_stream}[what]
        print(json.dumps(side(Path(folder), Path(rows))))
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "few": compare(Path(folder), arguments.small),
            "many": compare(Path(folder), arguments.rows),
        }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(arguments.output.read_text(), end="")


if __name__ == "__main__":
    main()
