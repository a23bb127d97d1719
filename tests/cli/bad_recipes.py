"""Faulty recipes and settings: exit 2 before anything else is read."""

from __future__ import annotations

from tests.cli.bad_cases import TRAIN, WEIGHTS, Case, appended, both, file, section

RECIPE = "model: {name_or_path: ./base}\ndata: {train: [{path: ./train.jsonl}]}\n"
CONDA = "name: qlora\nchannels: [x]\ndependencies: [python]\n"
HELD_OUT = "data.val_size=2"


def named(recipe: str) -> tuple[str, ...]:
    """The training of another recipe."""
    return ("train", recipe, *TRAIN[2:])


FILES = {
    "no recipe": Case(
        2, ("recipes.yaml", "no such", "recipe.yaml?"), command=named("recipes.yaml")
    ),
    "a folder": Case(2, ("folder", "recipe.yaml"), command=named(".")),
    "a weight file": Case(2, ("binary",), command=named(WEIGHTS)),
    "an empty file": Case(2, ("recipe.yaml", "empty"), file("recipe.yaml", "")),
    "comments only": Case(2, ("recipe.yaml", "empty"), file("recipe.yaml", "# nothing\n")),
    "a JSON list": Case(2, ("list",), file("recipe.yaml", "[1, 2]")),
    "a word": Case(2, ("recipe.yaml",), file("recipe.yaml", "qlora\n")),
    "a conda environment": Case(2, ("not a recipe",), file("recipe.yaml", CONDA)),
    "NUL bytes": Case(2, ("recipe.yaml", "binary"), file("recipe.yaml", "model: a\0\n")),
    "UTF-16": Case(2, ("recipe.yaml",), file("recipe.yaml", RECIPE.encode("utf-16"))),
    "latin-1": Case(2, ("recipe.yaml:2", "UTF-8"), file("recipe.yaml", b"a: b\n# caf\xe9\n")),
    "a control character": Case(2, ("recipe.yaml:1", "U+0007"), file("recipe.yaml", "a: \a\n")),
    "larger than a recipe": Case(2, ("1 MB",), file("recipe.yaml", "# \n" * 400_000)),
    "not YAML": Case(2, ("recipe.yaml:2",), file("recipe.yaml", "model: [unclosed\n")),
    "a tab": Case(2, ("recipe.yaml:2", "tab", "spaces"), file("recipe.yaml", "model:\n\ta: b\n")),
    "two documents": Case(
        2, ("recipe.yaml:3", "second"), file("recipe.yaml", RECIPE + "---\na: 1")
    ),
    "a merge key": Case(2, ("recipe.yaml:", "<<", "extends"), appended("optim: {<<: {a: 1}}\n")),
    "a tag": Case(
        2, ("recipe.yaml:", "!!float", "not allowed"), appended("optim: {eps: !!float 1}\n")
    ),
    "nested too deeply": Case(2, ("nested",), appended("loss: " + "[" * 80 + "]" * 80)),
    "a key twice": Case(
        2,
        ("recipe.yaml:3", "rank", "twice", "line 3"),
        file("recipe.yaml", RECIPE + "method: {rank: 1, rank: 2}"),
    ),
    "a section twice": Case(
        2,
        ("recipe.yaml:4", "optim", "twice", "line 3"),
        file("recipe.yaml", RECIPE + "optim: {}\noptim: {}\n"),
    ),
    "a recipe below one that is not there": Case(
        2, ("recipe.yaml", "above.yaml"), appended("extends: above.yaml\n")
    ),
    "a recipe below itself": Case(2, ("recipe.yaml",), appended("extends: recipe.yaml\n")),
}
KEYS = {
    "misspelt key": Case(
        2, ("did you mean learning_rate", "recipe.yaml:"), section("optim", learning_rat=1)
    ),
    "another section's key": Case(2, ("method", "recipe.yaml:"), section("optim", rank=8)),
    "unknown section": Case(
        2, ("did you mean optim", "recipe.yaml:"), section("optimm", name="adamw")
    ),
    "no model": Case(
        2, ("model",), file("recipe.yaml", "data: {train: [{path: ./train.jsonl}]}\n")
    ),
    "no data": Case(2, ("data",), file("recipe.yaml", "model: {name_or_path: ./base}\n")),
    "data of nothing": Case(2, ("data.train",), section("data", train=[])),
    "a source without a path": Case(2, ("path",), section("data", train=[{"max_rows": 3}])),
    "a section that is a list": Case(2, ("optim",), file("recipe.yaml", RECIPE + "optim: [1]\n")),
    "an environment": Case(2, ("recipe.yaml:", "env"), appended("env: {LD_PRELOAD: ./evil.so}\n")),
    "code of the model": Case(
        2, ("recipe.yaml:", "trust_remote_code"), section("model", trust_remote_code=True)
    ),
    "a token": Case(2, ("recipe.yaml:", "token"), section("model", hub_token="hf_x")),
    "several faults": Case(
        2,
        ("rank", "eps", "seed"),
        both(section("method", rank=0), section("optim", eps=0), section("train", seed=-1)),
    ),
    "a word for a number": Case(2, ("learning_rate", "fast"), set=("optim.learning_rate=fast",)),
    "no as a schedule": Case(2, ("constant",), section("optim", lr_scheduler_type="no")),
    "unknown method": Case(2, ("did you mean lora",), set=("method.name=lroa",)),
    "a key of another method": Case(
        2, ("num_virtual_tokens",), set=("method.num_virtual_tokens=3",)
    ),
    "a quantisation nobody has": Case(2, ("nf4",), set=("quantization.quant_type=nf5",)),
    "a dtype nobody trains in": Case(
        2, ("compute_dtype", "bfloat16"), set=("quantization.compute_dtype=float16",)
    ),
    "set without a value": Case(2, ("--set",), set=("optim.learning_rate",)),
    "set of an unknown key": Case(
        2, ("did you mean", "learning_rate"), set=("optim.learning_rte=1",)
    ),
    "a part of a combination": Case(
        2,
        ("method.parts.0.rank", "at least 1"),
        section("method", name="combination", parts=[{"rank": 0}]),
    ),
    "parts that cannot be together": Case(
        2,
        ("method.parts.1", "stands before the row"),
        section(
            "method", name="combination", rank=None, parts=[{"name": "prefix"}, {"name": "prompt"}]
        ),
    ),
    "a tuner of PEFT that is not taken": Case(
        2, ("method.type", "qtune has it"), section("method", name="peft", type="lora")
    ),
    "a tuner of PEFT that needs 16 bits": Case(
        2, ("method.type", "packed"), section("method", name="peft", type="LOHA")
    ),
    "a key that PEFT does not know": Case(
        2,
        ("method.config", "nonsense"),
        section("method", name="peft", rank=None, config={"nonsense": 1}),
    ),
    "layers that the model has not": Case(
        2,
        ("no such layers",),
        section("method", name="selective", rank=None, layers_to_transform="last:9"),
    ),
    "a target that matches nothing": Case(2, ("q_proj",), set=("method.target_modules=[qproj]",)),
    "a module to skip that is not there": Case(
        2, ("qq", "q_proj"), set=("quantization.skip_modules=[qq]",)
    ),
    "a tracker that is not installed": Case(
        2, ("logging.report_to: comet_ml is not",), set=("logging.report_to=[comet_ml]",)
    ),
    "a template that is no template": Case(
        2, ("model.chat_template",), set=("model.chat_template='{% for %}'",)
    ),
    "a template file that is not there": Case(
        2, ("nope.jinja",), set=("model.chat_template=./nope.jinja",)
    ),
}
RULES = {
    "a resume word": Case(
        2, ("checkpoint.resume", "never", "auto"), set=("checkpoint.resume=always",)
    ),
    "resume: true": Case(2, ("checkpoint.resume", "auto"), set=("checkpoint.resume=true",)),
    "resume without a run": Case(2, ("run",), command=(*TRAIN, "--resume")),
    "a change of no key": Case(
        2,
        ("--allow-change", "optim.eps"),
        command=(*TRAIN, "--resume", "--allow-change", "optm.eps"),
    ),
    "a loss gate without rows": Case(2, ("gates.max_loss", "held-out"), set=("gates.max_loss=1",)),
    "an answer gate without rows": Case(
        2, ("gates.min_token_f1", "data.eval"), set=("gates.min_token_f1=1",)
    ),
    "an answer gate without answers": Case(
        2,
        ("gates.min_exact_match", "eval.generate_rows"),
        set=(HELD_OUT, "gates.min_exact_match=1"),
    ),
    "a gate against a base that is not measured": Case(
        2,
        ("gates.min_loss_drop", "at_start"),
        set=(HELD_OUT, "gates.min_loss_drop=0", "eval.at_start=false"),
    ),
    "best of nothing": Case(2, ("checkpoint.metric",), section("checkpoint", metric="token_f1")),
    "a schedule's end that nothing reads": Case(
        2, ("min_lr_ratio", "constant"), section("optim", min_lr_ratio=0.1)
    ),
    "a weight that nothing reads": Case(
        2, ("weight",), section("data", train=[{"path": "./train.jsonl", "weight": 2}])
    ),
    "a delimiter of JSON Lines": Case(
        2, ("delimiter",), section("data", train=[{"path": "./train.jsonl", "delimiter": ","}])
    ),
    "weights of few bits that would move": Case(
        2, ("method.form", "virtual"), section("method", name="delta_lora", form="in_place")
    ),
    "places from no run": Case(
        4, ("no such folder", "nowhere"), section("method", name="rosa", mask_from="nowhere")
    ),
    "a revision of a folder": Case(2, ("revision",), section("model", revision="main")),
    "half a row held out": Case(2, ("data.val_size",), set=("data.val_size=2.5",)),
    "a stream without an end": Case(
        2, ("max_steps",), file("recipe.yaml", RECIPE.replace("]}", "], streaming: true}"))
    ),
}
RANGES = (
    "data.train.0.max_rows=0",
    "data.train.0.weight=0",
    "data.val_size=-1",
    "data.max_length=1",
    "data.shuffle_buffer=0",
    "loss.label_smoothing=1.5",
    "loss.temperature=0",
    "loss.soft_share=1.5",
    "loss.teacher_bits=5",
    "optim.learning_rate=0",
    "optim.learning_rate=-1e-4",
    "optim.learning_rate=.inf",
    "optim.learning_rate=.nan",
    "optim.learning_rate=2e-4x",
    "optim.weight_decay=-0.1",
    "optim.betas=[0.9, 1.5]",
    "optim.betas=[0.9]",
    "optim.eps=0",
    "optim.max_grad_norm=0",
    "optim.warmup_ratio=2",
    "optim.warmup_steps=-1",
    "optim.min_lr_ratio=-1",
    "train.num_train_epochs=0",
    "train.max_steps=0",
    "train.max_steps=2.5",
    "train.batch_size=0",
    "train.batch_size=-1",
    "train.seed=-1",
    "train.seed=4294967296",
    "train.max_time=soon",
    "train.max_time=0s",
    "train.max_time=90",
    "memory.micro_batch_size=0",
    "memory.micro_batch_size=many",
    "memory.loss_chunk_size=0",
    "memory.dequantized_layers=-1",
    "memory.budget=lots",
    "memory.budget=0GB",
    "watchdog.loss_limit=0",
    "watchdog.grad_norm_limit=-1",
    "watchdog.patience=0",
    "eval.steps=0",
    "eval.batch_size=0",
    "eval.generate_rows=-1",
    "eval.max_new_tokens=0",
    "checkpoint.steps=0",
    "checkpoint.every=soon",
    "checkpoint.keep=0",
    "gates.max_loss=0",
    "gates.max_perplexity=0.5",
    "gates.min_exact_match=1.5",
    "gates.min_token_f1=-1",
    "gates.min_accuracy=2",
    "gates.min_macro_f1=-1",
    "gates.min_loss_drop=much",
    "gates.min_exact_match_gain=.nan",
    "gates.min_token_f1_gain=some",
    "gates.max_peak_memory=small",
    "gates.min_tokens_per_second=0",
    "gates.max_wall_time=soon",
    "logging.steps=0",
    "loss.z_loss=-1",
    "logging.profile_steps=[0, 1]",
    "merge.max_kl=-1",
    "merge.max_shard_size=0",
    "quantization.bits=5",
    "method.rank=0",
    "method.rank=-3",
    "method.alpha=0",
    "method.dropout=1",
    "method.dropout=2",
    "method.layers_to_transform=[-1]",
    "method.rank_pattern={q_proj: 0}",
    "method.alpha_pattern={q_proj: 0}",
    "method.loraplus_ratio=0.5",
    "method={name: prompt, num_virtual_tokens: 0}",
)
# the keys that one method alone has, out of their range
METHOD_RANGES = {
    "min_rank": ("dylora", 0),
    "target_rank": ("adalora", 0),
    "initial_steps": ("adalora", -1),
    "final_steps": ("adalora", -1),
    "interval": ("adalora", 0),
    "importance_smoothing": ("adalora", -1),
    "uncertainty_smoothing": ("adalora", -1),
    "orthogonality": ("adalora", -1),
    "delta_ratio": ("delta_lora", 0),
    "density": ("rosa", 0),
    "warmup_steps": ("rosa", -1),
    "sparse_lr_ratio": ("rosa", 0),
    "circuit_layers": ("quantum", 0),
    "intrinsic_rank": ("quantum", 0),
    "width": ("bottleneck", 0),
    "num_virtual_tokens": ("prompt", 0),
    "encoder_width": ("p_tuning", 0),
    "group_share": ("long_lora", 0),
    "rope_factor": ("long_lora", 0.5),
    "rates": ("combination", [0]),
}
CASES = {
    **FILES,
    **KEYS,
    **RULES,
    **{
        setting: Case(2, (setting.split("=")[0].split(".")[-1],), set=(setting,))
        for setting in RANGES
    },
    **{
        f"{key} {value} of {name}": Case(
            2, (key, "must be"), section("method", name=name, **{key: value})
        )
        for key, (name, value) in METHOD_RANGES.items()
    },
}
