"""The names and values other tools use, and what they are here.

Sources: axolotl, TRL and alignment-handbook, LLaMA-Factory, litgpt, mlx-lm, torchtune, qlora.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# ours <- theirs. A foreign name is understood at the top level and inside the section it means.
_FLAT = {
    "model.name_or_path": "base_model model_name_or_path base_model_name_or_path checkpoint_dir",
    "model.revision": "revision_of_model model_revision base_model_revision",
    "model.tokenizer": "tokenizer_name_or_path tokenizer_name tokenizer_path tokenizer_config",
    "model.offline": "offline",
    "model.task": "task",
    "model.attn_implementation": "attn_implementation flash_attention flash_attn",
    "quantization.bits": "quantization_bit bits",
    "quantization.quant_type": "bnb_4bit_quant_type quantization_type quant_type",
    "quantization.double_quant": "bnb_4bit_use_double_quant use_bnb_nested_quant "
    "double_quantization double_quant",
    "quantization.compute_dtype": "bnb_4bit_compute_dtype torch_dtype bf16",
    "method.name": "adapter finetuning_type fine_tune_type peft_type",
    "method.rank": "lora_r lora_rank",
    "method.alpha": "lora_alpha",
    "method.dropout": "lora_dropout",
    "method.target_modules": "lora_target_modules lora_target lora_target_linear",
    "method.layers_to_transform": "peft_layers_to_transform",
    "method.use_rslora": "use_rslora peft_use_rslora",
    "method.use_dora": "use_dora peft_use_dora",
    "method.rank_pattern": "lora_rank_pattern",
    "method.alpha_pattern": "lora_alpha_pattern",
    "method.modules_to_save": "lora_modules_to_save additional_target",
    "method.loraplus_ratio": "loraplus_lr_ratio",
    "method.num_virtual_tokens": "num_virtual_tokens",
    "data.train": "datasets dataset_name",
    "data.eval": "test_datasets",
    "data.val_size": "val_set_size val_size test_split_size val_split_fraction eval_dataset_size",
    "data.max_length": "sequence_len max_seq_length max_seq_len cutoff_len max_length "
    "model_max_length",
    "data.overlong": "excess_length_strategy",
    "data.packing": "sample_packing packing neat_packing packed",
    "data.deduplicate": "dataset_exact_deduplication",
    "train.group_by_length": "group_by_length",
    "model.chat_template": "chat_template template",
    "model.chat_template_kwargs": "chat_template_kwargs",
    "loss.train_on": "train_on_inputs train_on_prompt train_on_source completion_only_loss "
    "assistant_only_loss mask_prompt",
    "loss.label_smoothing": "label_smoothing_factor label_smoothing",
    "optim.name": "optim optimizer",
    "optim.learning_rate": "learning_rate lr",
    "optim.weight_decay": "weight_decay",
    "optim.eps": "adam_epsilon",
    "optim.max_grad_norm": "max_grad_norm gradient_clipping clip_grad_norm",
    "optim.lr_scheduler_type": "lr_scheduler_type lr_scheduler",
    "optim.warmup_ratio": "warmup_ratio",
    "optim.warmup_steps": "warmup_steps lr_warmup_steps",
    "optim.min_lr_ratio": "cosine_min_lr_ratio",
    "train.num_train_epochs": "num_train_epochs num_epochs epochs",
    "train.max_steps": "max_steps",
    "train.batch_size": "effective_batch_size global_batch_size",
    "train.seed": "seed",
    "train.output_dir": "output_dir out_dir",
    "memory.activations": "gradient_checkpointing use_gradient_checkpointing "
    "enable_activation_checkpointing grad_checkpoint disable_gradient_checkpointing "
    "activation_offloading enable_activation_offloading",
    "eval.steps": "eval_steps steps_per_eval run_val_every_n_steps",
    "eval.at_start": "eval_on_start",
    "eval.batch_size": "eval_batch_size per_device_eval_batch_size",
    "eval.max_new_tokens": "max_new_tokens",
    "checkpoint.metric": "metric_for_best_model",
    "checkpoint.steps": "save_steps save_every",
    "logging.steps": "logging_steps log_every_n_steps steps_per_report",
    "logging.report_to": "report_to logger_name",
}

# Near names, understood inside the section only.
_NEAR = {
    "model": {"name_or_path": "name path id base", "tokenizer": "tokenizer_name"},
    "quantization": {"quant_type": "type", "double_quant": "nested"},
    "method": {
        "rank": "r",
        "target_modules": "target targets",
        "exclude_modules": "exclude",
        "layers_to_transform": "layers",
    },
    "data": {"train": "datasets", "eval": "val valid validation test", "max_length": "max_len"},
    "optim": {"lr_scheduler_type": "scheduler schedule", "warmup_steps": "warmup"},
    "train": {"output_dir": "output"},
    "eval": {"steps": "interval eval_steps every"},
    "logging": {"steps": "log_interval every"},
}


def _by_name(table: dict[str, str]) -> dict[str, str]:
    return {name: key for key, names in table.items() for name in names.split()}


FLAT: dict[str, str] = _by_name(_FLAT)
NEAR: dict[str, str] = {
    f"{section}.{name}": f"{section}.{key}"
    for section, table in _NEAR.items()
    for name, key in _by_name(table).items()
}

# Two foreign keys that mean one of ours only together; `aliases.py` joins them.
BITS = {"load_in_4bit": 4, "load_in_8bit": 8}
MICRO = frozenset({"micro_batch_size", "per_device_train_batch_size"})
ACCUMULATION = frozenset({"gradient_accumulation_steps", "grad_accumulation_steps"})

Values = Mapping[Any, Any] | Callable[[Any], Any]


def _one_source(value: Any) -> Any:
    return [{"path": value}] if isinstance(value, str) else value


def _module_list(value: Any) -> Any:
    """LLaMA-Factory's `q_proj,v_proj`; here a bare text is a regular expression."""
    if not isinstance(value, str) or value == "all":
        return value
    return [name.strip() for name in value.split(",")]


def _trackers(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [] if value in ("none", "no", "off") else [name.strip() for name in value.split(",")]


# What their values mean; None: the key is left unset. A value that is not listed stays as it is.
BY_NAME: dict[str, Values] = {
    "adapter": {"qlora": "lora"},
    "bf16": {True: "bfloat16", "auto": None, False: "float32"},
    "completion_only_loss": {True: "assistant", False: "all"},
    "assistant_only_loss": {True: "assistant", False: "all"},
    "mask_prompt": {True: "assistant", False: "all"},
    "train_on_inputs": {True: "all", False: "assistant"},
    "train_on_prompt": {True: "all", False: "assistant"},
    "train_on_source": {True: "all", False: "assistant"},
    "dataset_name": _one_source,
    "disable_gradient_checkpointing": {True: "none", False: "layer"},
    "activation_offloading": {True: "offload", False: None},
    "enable_activation_offloading": {True: "offload", False: None},
    "flash_attention": {True: "flash_attention_2", False: "sdpa"},
    "flash_attn": {"fa2": "flash_attention_2", "auto": None, "disabled": "eager"},
    "lora_target": _module_list,
    "lora_target_linear": {True: "all-linear", False: None},
    "torch_dtype": {"auto": None},
}
BY_KEY: dict[str, Values] = {
    "memory.activations": {True: "layer", False: "none", "unsloth": "offload"},
    "checkpoint.metric": {"eval_loss": "loss"},
    "model.chat_template": {
        "tokenizer_default": None,
        "tokenizer_default_fallback_chatml": None,
        "gemma2": "gemma",
        "gemma3": "gemma",
        "llama3": "llama-3",
        "mistral_v1": "mistral",
        "phi3": "phi",
        "phi_3": "phi",
        "phi_35": "phi",
        "qwen3": "qwen",
        "qwen3_nothink": "qwen",
        "qwen_25": "qwen",
    },
    "data.overlong": {"truncate": "truncate_end", "raise": "error"},
    "logging.report_to": _trackers,
    "method.name": {
        "qlora": "lora",
        "LORA": "lora",
        "PROMPT_TUNING": "prompt",
        "PREFIX_TUNING": "prefix",
    },
    "method.target_modules": {"all": "all-linear", "all_linear": "all-linear"},
    "optim.lr_scheduler_type": {"constant_with_warmup": "constant"},
    "optim.name": {
        "adamw_torch": "adamw",
        "adamw_torch_fused": "adamw",
        "adamw_hf": "adamw",
        "adamw_bnb_8bit": "adamw_8bit",
        "paged_adamw": "paged_adamw_32bit",
    },
    "quantization.bits": {"none": 16},
    "quantization.compute_dtype": {"bf16": "bfloat16", "fp32": "float32"},
    "train.max_steps": {-1: None},
}

SOURCE_NAMES = {
    "type": "format",
    "formatting": "format",
    "name": "config",
    "subset": "config",
    "num_samples": "max_rows",
}
_DIALECT = "format: messages reads role and content, format: sharegpt from and value"
SOURCE_NOT_HERE = {
    "chat_template": "write model: {chat_template: ...}",
    "data_files": "write path: the file, or a glob of files",
    "ds_type": "read off the name of the file: remove it",
    "field": "write columns: {text: ...}",
    "field_messages": "write columns: {messages: ...}, for sharegpt {conversations: ...}",
    **{f"field_{name}": f"write columns: {{{name}: ...}}" for name in ("instruction", "input")},
    **dict.fromkeys(
        ("message_field_role", "message_field_content", "message_property_mappings"), _DIALECT
    ),
    **dict.fromkeys(("roles", "tags", "conversation", "train_on_eos"), "remove it: " + _DIALECT),
    **dict.fromkeys(("roles_to_train", "message_field_training"), "write loss: {train_on: ...}"),
    "ranking": "format: preference reads chosen and rejected",
    "trust_remote_code": "never from a recipe: code of a data set is not run",
}
# axolotl's shapes of pairs and of judged answers, which are told apart by their columns here.
_JUDGED = "argilla argilla_chat icr intel prompt_pairs ultra load_nectar"
SOURCE_FORMATS = {
    **{
        f"{template}.{shape}": "auto"
        for template in ("chat_template", "chatml", "llama3", "zephyr")
        for shape in _JUDGED.split()
    },
    "alpaca:chat": "alpaca",
    "chat_template": "messages",
    "chat_template.default": "preference",
    "completion": "text",
    "openai": "messages",
    "prompt_completion": "prompt-completion",
}

# A section that is one text means this key of it, as in `optim: paged_adamw_32bit`.
TEXT_SECTIONS = {"model": "model.name_or_path", "optim": "optim.name"}

_NO_NEED = "qtune needs no such setting: remove it"
NOT_HERE: dict[str, str] = {
    **dict.fromkeys(
        ("trust_remote_code", "trust_remote_code_model"),
        "never from a recipe: code of a model repository is not run",
    ),
    **dict.fromkeys(
        ("pad_to_sequence_len", "eval_sample_packing"),
        "rows are not packed: remove it",
    ),
    **dict.fromkeys(
        ("evals_per_epoch", "eval_strategy", "evaluation_strategy", "do_eval"),
        "eval.steps counts optimizer steps; without it the start and the end are measured",
    ),
    **dict.fromkeys(
        (
            "saves_per_epoch",
            "save_strategy",
            "save_total_limit",
            "save_only_model",
            "save_first_step",
        ),
        "checkpoint: says which weights a run keeps",
    ),
    **dict.fromkeys(
        ("wandb_project", "wandb_entity", "wandb_name", "wandb_watch", "wandb_log_model"),
        "logging: {report_to: [wandb]}; wandb reads the rest from its environment variables",
    ),
    **dict.fromkeys(
        ("use_wandb", "use_tensorboard", "use_mlflow"), "logging: {report_to: [...]} names trackers"
    ),
    **dict.fromkeys(
        ("special_tokens", "tokenizer_type", "model_type"),
        "read from the model's own files: remove it",
    ),
    **dict.fromkeys(
        ("stage", "do_train", "rl", "rl_beta", "beta", "pref_loss", "use_peft"),
        "qtune trains adapters on supervised rows: remove it",
    ),
    **dict.fromkeys(
        ("fsdp", "fsdp_config", "deepspeed", "ddp_timeout", "devices", "num_nodes"),
        "qtune train --processes says how many devices, distributed.strategy what each holds",
    ),
    **dict.fromkeys(
        ("hub_model_id", "push_to_hub", "hub_strategy"), "qtune uploads nothing: remove it"
    ),
    **dict.fromkeys(
        ("fp16", "tf32", "precision"), "quantization.compute_dtype is bfloat16 or float32"
    ),
    **dict.fromkeys(
        ("overwrite_output_dir", "overwrite_cache"), "nothing is ever overwritten: remove it"
    ),
    **dict.fromkeys(
        ("early_stopping_patience", "load_best_model_at_end"),
        "checkpoint.final: best keeps the best weights",
    ),
    **dict.fromkeys(("loss_watchdog_threshold", "loss_watchdog_patience"), _NO_NEED),
    **dict.fromkeys(
        ("dataset_prepared_path", "dataset_num_proc", "preprocessing_num_workers"), _NO_NEED
    ),
    **dict.fromkeys(
        ("dataloader_num_workers", "remove_unused_columns", "log_level", "logging_strategy"),
        _NO_NEED,
    ),
    **dict.fromkeys(
        ("dataset", "dataset_dir", "dataset_mixture", "dataset_mixer", "train_file"),
        "write data: {train: [{path: ...}]}",
    ),
    **dict.fromkeys(("plot_loss", "low_cpu_ram", "quantization_method"), _NO_NEED),
    "chat_template_jinja": "write the text itself, or a .jinja file, as model.chat_template",
    "gradient_checkpointing_kwargs": "checkpointing is always non-reentrant: remove it",
    "max_samples": "write max_rows beside the path of a source",
    "lora_parameters": "write method: {rank: ..., alpha: ...}; alpha is their scale x rank",
    "quantize": "write quantization: {quant_type: nf4, double_quant: false}, or bits: 8 or 16",
    "lr_scheduler_kwargs": "optim.min_lr_ratio says where linear and cosine end",
    "batch_size": "train.batch_size counts the rows of one optimizer step: micro-batch x "
    "accumulation",
    "iters": "train.max_steps counts optimizer steps",
    "env": "a recipe sets no environment variables",
}
