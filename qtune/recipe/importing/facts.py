"""What other tools' words mean here, and why some of their keys become nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Kind

Reason = tuple["Kind", str]

# None: there is no such optimizer here, and plain AdamW takes its place with a remark.
OPTIMIZERS = {
    **dict.fromkeys(
        ("adamw", "adam", "adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_torch_4bit"),
        "adamw",
    ),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "adamw8bit"), "adamw_8bit"),
    **dict.fromkeys(
        ("paged_adamw", "paged_adamw_32bit", "pagedadamw", "pagedadamw32bit"), "paged_adamw_32bit"
    ),
    **dict.fromkeys(("paged_adamw_8bit", "pagedadamw8bit"), "paged_adamw_8bit"),
    **dict.fromkeys(("lion_8bit", "lion", "lion_32bit"), "lion_8bit"),
    **dict.fromkeys(("paged_lion_8bit", "paged_lion_32bit"), "paged_lion_8bit"),
    **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit", "ademamix"), "ademamix_8bit"),
    "sgd": "sgd",
}
SCHEDULERS = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "polynomial": "linear",
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
}
DTYPES = {
    **dict.fromkeys(("bf16", "bfloat16", "torch.bfloat16", "bf16-true", "bf16-mixed"), "bfloat16"),
    **dict.fromkeys(("fp32", "float32", "torch.float32", "32-true"), "float32"),
    **dict.fromkeys(("fp16", "float16", "torch.float16", "16-true", "16-mixed"), "bfloat16"),
}
HALF = frozenset({"fp16", "float16", "torch.float16", "16-true", "16-mixed"})
TRACKERS = ("tensorboard", "wandb", "mlflow", "comet_ml", "trackio")
OBJECTIVES = {
    "dpo": "DPO, on preferred and rejected answers",
    "ipo": "IPO, on preferred and rejected answers",
    "orpo": "ORPO, on preferred and rejected answers",
    "simpo": "SimPO, on preferred and rejected answers",
    "kto": "KTO, on answers judged good or bad",
    "ppo": "PPO, against a reward model",
    "grpo": "GRPO, against rewards",
    "gdpo": "GDPO, against rewards",
    "rm": "a reward model, on preferred and rejected answers",
    "reward": "a reward model, on preferred and rejected answers",
}
SUPERVISED = "qtune learns from answers to imitate: import the supervised stage before it"

_PLAN: Reason = ("left to the plan", "qtune plan chooses by the memory there is")
_HARDWARE: Reason = ("left to the plan", "the kernels are chosen and tried when a run starts")
_FILES: Reason = ("not needed", "read from the model's own files")
_OWN_CACHE: Reason = ("not needed", "rows are encoded once and kept by their content")
_NEVER_OVERWRITTEN: Reason = ("not needed", "qtune never overwrites")
_NOTHING: Reason = ("not needed", "changes nothing here")
_TRACKER: Reason = ("not needed", "trackers read it from their own environment variables")
_DEVICES: Reason = (
    "left to the plan",
    "distributed.strategy: auto chooses what each device holds; --processes says how many",
)
_NO_UPLOAD: Reason = ("not needed", "training uploads nothing")
_NO_CODE: Reason = ("not in qtune", "code of a model repository is never run")
_STEPS: Reason = (
    "not in qtune",
    "measured at the start and the end; eval.steps counts optimizer steps in between",
)
_SAVES: Reason = (
    "not in qtune",
    "saved at each evaluation and the end; checkpoint.steps adds more",
)
_STOP: Reason = ("not in qtune", "no early stop; checkpoint.final: best keeps the best weights")
_SWITCHED: Reason = ("not needed", "qtune train trains adapters on answers without being told")
_ATTENTION: Reason = (
    "not needed",
    "sdpa keeps packed rows apart too; model.attn_implementation names another kernel",
)
_OPTIMIZER: Reason = ("not in qtune", "of an optimizer that qtune does not have")
_LOADING: Reason = ("not in qtune", "of another way to load or adapt the base")
_TEMPLATE: Reason = ("not in qtune", "model.chat_template takes a template's text or file")
_QUANTISER: Reason = ("not in qtune", "the base is quantised by bitsandbytes only")

# Keys by their last part, or by the table they stand in.
_NAMES: dict[Reason, str] = {
    _PLAN: (
        "gradient_checkpointing gradient_checkpointing_kwargs activation_offloading "
        "use_gradient_checkpointing disable_gradient_checkpointing layer_offloading "
        "enable_activation_checkpointing enable_activation_offloading low_cpu_ram "
        "grad_checkpoint max_memory_MB max_memory gpu_memory_limit per_device_eval_batch_size "
        "eval_batch_size batch_size_val device_map use_unsloth_gc use_reentrant_gc "
        "fsdp_offload_params offload"
    ),
    _HARDWARE: (
        "tf32 torch_compile compile use_liger_kernel liger_kernel enable_liger_kernel fused "
        "use_unsloth"
    ),
    _FILES: (
        "model_type tokenizer_type is_llama_derived_model special_tokens eot_tokens "
        "tokenizer_use_fast use_auth_token use_fast_tokenizer hf_token token"
    ),
    _OWN_CACHE: (
        "dataset_prepared_path dataset_num_proc preprocessing_num_workers overwrite_cache "
        "dataset_processes tokenized_path cache_dir num_proc dataloader_num_workers "
        "dataloader_pin_memory dataloader_prefetch_factor num_workers download_dir "
        "max_packed_sequence_len group_by_modality_length"
    ),
    _NEVER_OVERWRITTEN: "overwrite_output_dir hub_model_revision",
    _NOTHING: (
        "remove_unused_columns pad_to_sequence_len ignore_index eval_sample_packing use_cache "
        "use_reentrant ddp_find_unused_parameters plot_loss strict log_level logging_strategy "
        "logging_first_step logging_dir disable_tqdm include_tokens_per_second "
        "include_num_input_tokens_seen log_peak_memory_stats save_safetensors save_only_model "
        "save_adapter_weights_only dataset_text_field eval_accumulation_steps "
        "bnb_4bit_quant_storage eval_sequence_len"
    ),
    _TRACKER: (
        "wandb wandb_project wandb_entity wandb_watch wandb_name wandb_log_model wandb_run_id "
        "mlflow_experiment_name mlflow_tracking_uri run_name wandb_mode wandb_token "
        "tensorboard_dir log_dir trackio_space_id project"
    ),
    _DEVICES: (
        "fsdp fsdp_config deepspeed ddp_timeout num_nodes ddp ddp_bucket_cap_mb local_rank "
        "fsdp_version accelerator_config tensor_parallel_size"
    ),
    _NO_UPLOAD: (
        "hub_model_id push_to_hub hub_strategy push_dataset_to_hub hub_token hub_private_repo "
        "export_hub_model_id"
    ),
    _NO_CODE: "trust_remote_code trust_remote_code_model",
    _STEPS: (
        "evals_per_epoch eval_strategy evaluation_strategy eval_steps do_eval "
        "run_val_every_n_steps steps_per_eval interval eval_on_each_dataset"
    ),
    _SAVES: "saves_per_epoch save_strategy save_first_step save_steps",
    _STOP: "early_stopping_patience early_stopping_steps load_best_model_at_end",
    _SWITCHED: "do_train stage train use_peft peft_use finetuning_type strategy",
    _ATTENTION: (
        "attn_implementation flash_attention flash_attn xformers_attention sdp_attention "
        "use_flash_attention_2"
    ),
    _OPTIMIZER: "optim_target_modules galore_rank adam_beta3 adam_epsilon2",
    _LOADING: "model_init_kwargs load_in_16bit use_qalora use_bdlora",
    _TEMPLATE: "chat_template_jinja chat_template_path",
    _QUANTISER: "gptq gptq_groupsize gptq_model_v1 quantization_method load_in_fp8",
}
COMMON: dict[str, Reason] = {
    **{name: reason for reason, names in _NAMES.items() for name in names.split()},
    **dict.fromkeys(
        ("resume_from_checkpoint", "auto_resume_from_checkpoints"),
        ("not needed", "a run goes on with qtune train --resume, or checkpoint: {resume: auto}"),
    ),
    "checkpointer": ("not needed", "the run's own folder, and the model's own files"),
    "device": ("not needed", "the GPU where there is one, or this CPU"),
    "profiler": ("not needed", "logging.profile_steps: [first, last] records a trace"),
    "torchdistx_path": ("not needed", "weights are read one at a time anyway"),
    "loss": ("not needed", "the loss is computed in chunks of positions anyway"),
    "max_steps_per_epoch": ("not in qtune", "train.max_steps counts over all epochs"),
    "lr_scheduler_kwargs": ("not in qtune", "optim.min_lr_ratio says where linear and cosine end"),
    "neftune_noise_alpha": ("not in qtune", "no noise on embeddings"),
    "unfrozen_parameters": ("not in qtune", "method.modules_to_save names what is trained whole"),
    **dict.fromkeys(
        ("lora_model_dir", "adapter_name_or_path", "resume_adapter_file"),
        ("not in qtune", "a run begins with a new adapter"),
    ),
    **dict.fromkeys(
        ("use_loftq", "loftq_config", "peft_init_lora_weights", "pissa_init"),
        ("not in qtune", "A is drawn and B begins as zero"),
    ),
    "task_type": ("not needed", "model.task is causal unless it says classification"),
    "bias": ("not in qtune", "method: [lora, bitfit] trains delta-biases beside"),
    "drop_system_message": ("not in qtune", "system turns are part of what is asked"),
    "data_seed": ("not in qtune", "train.seed is the seed of the order too"),
    **dict.fromkeys(
        ("adam_beta1", "adam_beta2"),
        ("not in qtune", "write both of optim.betas"),
    ),
    "logging_steps": ("not in qtune", "logging.steps counts optimizer steps"),
}
UNKNOWN = "qtune has no such setting"
