"""Small recipes of other tools, written for these tests."""

AXOLOTL = """\
base_model: org/small
model_type: LlamaForCausalLM
load_in_4bit: true
bnb_config_kwargs: {bnb_4bit_use_double_quant: false}
datasets:
  - path: someone/chats
    type: chat_template
    field_messages: talk
    message_property_mappings: {role: from, content: value}
    split: train[:90%]
    shards: 4
  - path: someone/tasks
    type: alpaca
val_set_size: 0.02
adapter: qlora
lora_r: 24
lora_alpha: 48
lora_target_modules: [q_proj, v_proj]
sequence_len: 1024
sample_packing: true
micro_batch_size: 3
gradient_accumulation_steps: 5
num_epochs: 2
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
cosine_min_lr_ratio: 0.1
learning_rate: 3e-4
warmup_steps: 12
eval_steps: 40
save_steps: 80
train_on_inputs: false
wandb_project: mine
hf_token: hf_secretsecret
early_stopping_patience: 3
deepspeed: zero2.json
output_dir:
"""
TRL = """\
model_name_or_path: org/small
dataset_name: someone/chats
dataset_train_split: learn
dataset_test_split: check
eval_strategy: steps
eval_steps: 25
use_peft: true
load_in_4bit: true
bnb_4bit_compute_dtype: float16
lora_r: 8
lora_alpha: 32
lora_target_modules: [all-linear]
assistant_only_loss: true
max_length: 640
per_device_train_batch_size: 2
gradient_accumulation_steps: 6
learning_rate: 1.0e-4
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.2}
warmup_ratio: 0.05
max_steps: 300
report_to: [wandb, none]
"""
LLAMA_FACTORY = """\
model_name_or_path: org/small
stage: sft
do_train: true
finetuning_type: lora
quantization_bit: 8
lora_rank: 12
lora_target: q_proj,o_proj
dataset: ours,alpaca_en
template: mistral
cutoff_len: 700
max_samples: 50
val_size: 0.1
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
"""
DATASET_INFO = """\
{"ours": {"file_name": "ours.json", "formatting": "sharegpt", "columns": {"messages": "talk"},
          "tags": {"role_tag": "role", "content_tag": "content"}}}
"""
TORCHTUNE = """\
# tune download org/small --output-dir /nowhere/small --ignore-patterns "x"
output_dir: out
model:
  _component_: torchtune.models.llama3.qlora_llama3_8b
  lora_attn_modules: ['q_proj', 'output_proj']
  apply_lora_to_mlp: True
  apply_lora_to_output: False
  lora_rank: 6
  lora_alpha: 12
tokenizer:
  _component_: torchtune.models.llama3.llama3_tokenizer
  path: /nowhere/small/tokenizer.model
  max_seq_len: 900
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: /nowhere/small/
dataset:
  _component_: torchtune.datasets.chat_dataset
  source: someone/chats
  conversation_column: talk
  conversation_style: sharegpt
  packed: True
optimizer:
  _component_: bitsandbytes.optim.PagedAdamW8bit
  lr: 2e-5
lr_scheduler:
  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
  num_warmup_steps: 7
clip_grad_norm: 0.5
batch_size: 3
gradient_accumulation_steps: 4
epochs: 3
dtype: bf16
metric_logger:
  _component_: torchtune.training.metric_logging.WandBLogger
profiler: {_component_: torchtune.training.setup_torch_profiler, enabled: False, cpu: 1, cuda: 2}
"""
LITGPT = """\
checkpoint_dir: checkpoints/org/small-llama
quantize: bnb.nf4-dq
precision: bf16-true
lora_r: 5
lora_alpha: 10
lora_query: true
lora_key: true
lora_value: false
lora_projection: true
lora_mlp: true
data:
  class_path: litgpt.data.JSON
  init_args: {json_path: rows.json, mask_prompt: true, val_split_fraction: 0.2}
train: {global_batch_size: 32, micro_batch_size: 2, lr_warmup_steps: 9, epochs: 2,
        max_seq_length: 300, min_lr: 6.0e-5, save_interval: 50}
eval: {interval: 60}
optimizer:
  class_path: torch.optim.AdamW
  init_args: {lr: 0.0005, weight_decay: 0.02, betas: [0.9, 0.95]}
"""
MLX = """\
model: mlx-community/Llama-3.2-3B-Instruct-4bit
train: true
data: rows
num_layers: 4
batch_size: 2
grad_accumulation_steps: 4
iters: 800
steps_per_eval: 200
save_every: 400
learning_rate: 1e-5
mask_prompt: true
max_seq_length: 512
optimizer: adam
lr_schedule: {name: cosine_decay, warmup: 20, arguments: [2e-4, 800, 2e-5]}
lora_parameters: {keys: [self_attn.q_proj], rank: 4, scale: 10.0, dropout: 0.1}
"""
UNSLOTH = """\
model: unsloth/small
data: {local_dataset: [rows.jsonl], format_type: chatml}
training: {max_seq_length: 1500, load_in_4bit: true, batch_size: 4, gradient_accumulation_steps: 2,
           learning_rate: 1e-4, warmup_steps: 3, max_steps: 60, train_on_completions: true}
lora: {lora_r: 16, lora_alpha: 32, target_modules: "q_proj,k_proj", use_rslora: true}
logging: {enable_wandb: true, hf_token: hf_secretsecret}
"""
SCRIPT = """\
from unsloth import FastLanguageModel
import torch
if "COLAB" in environment:
    !pip install \\
        unsloth
else:
    %env A=1
max_seq_length = 1024
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name="unsloth/small", max_seq_length=max_seq_length, load_in_4bit=True, dtype=None)
model = FastLanguageModel.get_peft_model(
    model, r=32, target_modules=["q_proj", "v_proj"], lora_alpha=64, lora_dropout=0,
    use_gradient_checkpointing="unsloth", random_state=7)
dataset = load_dataset("someone/chats", split="train")
raise SystemExit("a script is never run")
trainer = SFTTrainer(model=model, args=SFTConfig(
    per_device_train_batch_size=2, gradient_accumulation_steps=4, warmup_steps=5, max_steps=60,
    learning_rate=2e-4, optim="adamw_8bit", weight_decay=0.01, lr_scheduler_type="linear",
    bf16=torch.cuda.is_bf16_supported(), output_dir=f"runs/{max_seq_length}"))
trainer = train_on_responses_only(trainer, instruction_part="u", response_part="a")
"""
SHELL = """\
#!/bin/bash
# trains a small guanaco
export WANDB_MODE=offline
python qlora.py \\
    --model_name_or_path org/small \\
    --dataset alpaca-clean \\
    --bits 4 --quant_type fp4 --double_quant False --bf16 \\
    --source_max_len 384 --target_max_len 128 \\
    --per_device_train_batch_size 4 --gradient_accumulation_steps 4 \\
    --max_steps 200 --learning_rate 0.0001 --lora_r 32 \\
    --lora_dropout=0.1 --do_mmlu_eval --unheard_of 3
"""
