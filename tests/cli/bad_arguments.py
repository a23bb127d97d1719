"""Bad arguments of the other verbs; `done` is a finished run, `base` its model."""

from __future__ import annotations

from tests.cli.bad_cases import Case, file, gone, lines

EVAL = {
    "no such run": Case(2, ("nowhere", "no such"), command=("eval", "./nowhere", "-q")),
    "a run that is a file": Case(
        2, ("recipe.yaml", "train"), command=("eval", "recipe.yaml", "-q")
    ),
    "an empty folder": Case(2, ("run",), command=("eval", "run", "-q")),
    "a name on the hub": Case(4, ("nobody",), command=("eval", "nobody/none", "-q")),
    "nothing held out": Case(2, ("base", "recipe"), command=("eval", "base", "-q")),
    "no data file": Case(3, ("nope.jsonl",), command=("eval", "done", "nope.jsonl", "-q")),
    "no recipe": Case(2, ("nope.yaml",), command=("eval", "done", "nope.yaml", "-q")),
    "faulty rows": Case(
        3,
        ("bad.jsonl:1",),
        lines("bad.jsonl", {"prompt": 1, "completion": "a"}),
        command=("eval", "done", "bad.jsonl", "-q"),
    ),
    "no row": Case(
        3,
        ("bad.jsonl", "no rows"),
        file("bad.jsonl", ""),
        command=("eval", "done", "bad.jsonl", "-q"),
    ),
    "no rows asked": Case(2, ("--rows",), command=("eval", "done", "--rows", "0")),
    "a word for rows": Case(2, ("--rows",), command=("eval", "done", "--rows", "all")),
    "an option nobody has": Case(2, ("--row",), command=("eval", "done", "--row", "3")),
    "a report that is there": Case(
        7, ("recipe.yaml",), command=("eval", "done", "-o", "recipe.yaml", "-q")
    ),
    "a report in no folder": Case(
        2, ("nowhere",), command=("eval", "done", "-o", "nowhere/r.json", "-q")
    ),
    "settings without a recipe": Case(
        2, ("--set",), command=("eval", "base", "train.jsonl", "--set", "eval.batch_size=2")
    ),
    "gates that are not set": Case(2, ("gates",), command=("eval", "done", "--gates", "-q")),
    "another base": Case(
        4, ("nowhere",), command=("eval", "done", "--base-model", "./nowhere", "-q")
    ),
    "a run without its adapter": Case(
        4,
        ("done", "adapter"),
        gone("done/adapter/adapter_config.json"),
        command=("eval", "done", "-q"),
    ),
    "a run with a faulty recipe": Case(
        2, ("recipe.yaml",), file("done/recipe.yaml", "a: ["), command=("eval", "done", "-q")
    ),
}
MERGE = {
    "no output": Case(2, ("--output",), command=("merge", "done")),
    "an output with a name too long": Case(
        2, ("too long",), command=("merge", "done", "-o", "a" * 300, "-q")
    ),
    "no adapter": Case(
        2, ("base", "without an adapter"), command=("merge", "base", "-o", "out", "-q")
    ),
    "an output in use": Case(7, ("base",), command=("merge", "done", "-o", "base", "-q")),
    "an output that is a file": Case(
        7, ("train.jsonl",), command=("merge", "done", "-o", "train.jsonl", "-q")
    ),
    "an output inside the run": Case(
        7, ("done",), command=("merge", "done", "-o", "done/adapter", "-q")
    ),
    "an output below a file": Case(
        5,
        ("train.jsonl/out", "is a file"),
        command=("merge", "done", "-o", "train.jsonl/out", "-q"),
    ),
    "a dtype nobody writes": Case(
        2, ("--dtype",), command=("merge", "done", "-o", "out", "--dtype", "int4")
    ),
    "a base nobody has": Case(
        2, ("--base",), command=("merge", "done", "-o", "out", "--base", "other")
    ),
    "a shard size of nothing": Case(
        2,
        ("max-shard-size",),
        command=("merge", "done", "-o", "out", "--max-shard-size", "big", "-q"),
    ),
    "a limit below zero": Case(
        2, ("max_kl",), command=("merge", "done", "-o", "out", "-q", "--set", "merge.max_kl=-1")
    ),
}
GENERATE = {
    "no prompt": Case(2, ("no prompt", "--prompt"), command=("generate", "done", "-q")),
    "a prompt file that is not there": Case(
        2, ("nope.txt",), command=("generate", "done", "--prompt-file", "nope.txt", "-q")
    ),
    "a prompt file that is a folder": Case(
        2, ("base",), command=("generate", "done", "--prompt-file", "base", "-q")
    ),
    "a prompt of bytes": Case(
        2,
        ("UTF-8",),
        file("p.txt", b"\xff"),
        command=("generate", "done", "--prompt-file", "p.txt", "-q"),
    ),
    "a prompt too long": Case(
        3, ("300 tokens",), command=("generate", "done", "-p", "a" * 300, "-q")
    ),
    "no new token": Case(
        2, ("--max-new-tokens",), command=("generate", "done", "-p", "a", "--max-new-tokens", "0")
    ),
    "a temperature below zero": Case(
        2, ("--temperature",), command=("generate", "done", "-p", "a", "--temperature", "-1")
    ),
    "a temperature that is no number": Case(
        2, ("--temperature",), command=("generate", "done", "-p", "a", "--temperature", "nan")
    ),
    "no such model": Case(2, ("./nowhere",), command=("generate", "./nowhere", "-p", "a", "-q")),
    "a name of nothing": Case(2, ("no run",), command=("generate", "", "-p", "a", "-q")),
}
OTHERS = {
    "no such run to show": Case(2, ("nowhere",), command=("runs", "show", "nowhere")),
    "a folder that is no run": Case(2, ("base",), command=("runs", "show", "base")),
    "a file to list": Case(2, ("recipe.yaml",), command=("runs", "list", "recipe.yaml")),
    "a folder to list that is not there": Case(
        2, ("nowhere",), command=("runs", "list", "nowhere")
    ),
    "a run beside none": Case(2, ("nowhere",), command=("runs", "diff", "nowhere", "done")),
    "rows that are no numbers": Case(
        2, ("--rows",), command=("data", "preview", "recipe.yaml", "--rows", "a")
    ),
    "a row that is not there": Case(
        2, ("99",), command=("data", "preview", "recipe.yaml", "--rows", "99", "-q")
    ),
    "row zero": Case(2, ("0",), command=("data", "preview", "recipe.yaml", "--rows", "0", "-q")),
    "no rows to see": Case(2, ("-n",), command=("data", "preview", "recipe.yaml", "-n", "0")),
    "a page that is there": Case(
        7, ("recipe.yaml",), command=("data", "stats", "recipe.yaml", "--html", "recipe.yaml")
    ),
    "a page in no folder": Case(
        2, ("nowhere",), command=("data", "stats", "recipe.yaml", "--html", "nowhere/a.html")
    ),
    "faulty rows to preview": Case(
        3,
        ("train.jsonl:1",),
        file("train.jsonl", "[1]\n"),
        command=("data", "preview", "recipe.yaml", "-q"),
    ),
    "faulty rows to measure": Case(
        3,
        ("train.jsonl:1",),
        file("train.jsonl", "[1]\n"),
        command=("data", "stats", "recipe.yaml", "-q"),
    ),
    "a plan without memory": Case(2, ("--gpu",), command=("plan", "recipe.yaml", "--gpu", "lots")),
    "a verb nobody has": Case(2, ("tarin",), command=("tarin",)),
    "steps that are a word": Case(
        2, ("--max-steps",), command=("train", "recipe.yaml", "--max-steps", "many")
    ),
}
CASES = {
    f"{verb}: {name}": case
    for verb, cases in {"eval": EVAL, "merge": MERGE, "generate": GENERATE, "other": OTHERS}.items()
    for name, case in cases.items()
}
