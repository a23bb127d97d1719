"""The sections of a recipe: every key, its type, its default and its meaning.

The text under a key is its documentation: `qtune schema` prints it, and faults quote it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from qtune.recipe.duration import Duration  # noqa: TC001 - pydantic reads it
from qtune.recipe.methods import LoraConfig, MethodConfig
from qtune.recipe.section import ChatTemplate, Names, Real, Section, Share, Size

Step = Annotated[int, Field(ge=1)]
ActivationPolicy = Literal["none", "selective", "layer", "offload"]
Base = Literal["resident", "stream"]
Kernels = Literal["auto", "plain", "fused", "triton"]
Task = Literal["causal", "classification"]


class ModelSection(Section):
    """Which base model."""

    name_or_path: str = Field(min_length=1)
    """A Hugging Face id, or a folder (relative to the file that names it)."""
    task: Task = "causal"
    """What is learnt: the next token, or the label of a whole text by a head of its own, on an
    encoder (BERT) or a decoder (Llama); `task: classification` at the top is the same."""
    labels: Names = ()
    """Names of a classification's labels in the order of their numbers; without it those of the
    sources' labels, or all that the training rows hold."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face id."""
    tokenizer: str | None = None
    """Another id or folder to take the tokenizer from."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """The attention kernel of transformers."""
    chat_template: ChatTemplate | None = None
    """How chats are written: a built-in (alpaca, chatml, gemma, llama-3, mistral, phi, qwen,
    vicuna, zephyr), a .jinja file or a template's text; without it the tokenizer's own."""
    chat_template_kwargs: dict[str, bool | int | float | str] = {}
    """Variables handed to the chat template, such as enable_thinking: false."""
    offline: bool = False
    """No network for model, tokenizer and data, whatever is cached; `offline: true` at the top of
    a recipe is the same."""


class QuantizationSection(Section):
    """How the frozen base is held in memory."""

    bits: Literal[4, 8, 16] = 4
    """4 (NF4 or FP4), 8 (LLM.int8) or 16 (not quantised, in compute_dtype)."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit code: NF4 (Dettmers et al. 2023) or FP4."""
    double_quant: bool = True
    """Quantise the block constants too: 4.127 instead of 4.5 bits per weight."""
    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """The dtype of matrix products, embeddings, norms and head."""
    skip_modules: Names = ()
    """More linear modules to leave unquantised; the head is always left."""


class SourceSection(Section):
    """One file, some files, or a hub data set."""

    path: str = Field(min_length=1)
    """A json, jsonl, csv, tsv, txt, parquet or arrow file, a folder or a glob of such files, or a
    Hugging Face data set id."""
    format: Literal[
        "auto",
        "alpaca",
        "messages",
        "sharegpt",
        "tree",
        "prompt-completion",
        "self-instruct",
        "classification",
        "multiple-choice",
        "preference",
        "unpaired",
        "text",
        "tokens",
    ] = "auto"
    """How a row becomes turns; auto reads it off the columns and says so. Preference and unpaired
    rows are read and checked, but not trained on yet."""
    columns: dict[str, str] = {}
    """Field of the format -> column of the file, where they differ."""
    prompt_template: str | None = None
    """Text of the prompt with {column} places, for prompt-completion rows, and for classification
    in place of "{text}", an empty line and "Label:" with a line break."""
    labels: str | Names = ()
    """Names of a classification's labels, from number 0 on, or a file of them: one a line (or
    number, tab, name), or .json with a list or an object; any other label is a fault."""
    column_names: Names = ()
    """Names of the columns of a csv, tsv or txt file without a header, or of the items of rows that
    are lists in json and jsonl."""
    delimiter: str | None = None
    """What separates the columns of a csv, tsv or txt file."""
    config: str | None = None
    """Configuration of a hub data set."""
    split: str = "train"
    """Split of a hub data set, a folder or a json object, or a part of it such as train[:5%]."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set."""
    max_rows: int | None = Field(default=None, ge=1)
    """Take only the first rows."""
    weight: Annotated[Real, Field(gt=0.0)] = 1.0
    """Share of an epoch that comes from this source, against the others', with mix: weighted."""


class DataSection(Section):
    """What is learnt and what is held out."""

    train: Annotated[tuple[SourceSection, ...], Field(strict=False, min_length=1)]
    """Sources of training rows."""
    eval: Annotated[tuple[SourceSection, ...], Field(strict=False)] = ()
    """Sources of held-out rows."""
    val_size: Annotated[Real, Field(ge=0.0)] = 0.0
    """Hold out this share (below 1) or number of the training rows, when eval is empty."""
    split_by: str | None = None
    """Column whose equal values stay on one side of val_size."""
    mix: Literal["concat", "weighted", "round_robin"] = "concat"
    """How an epoch takes rows from several sources."""
    deduplicate: bool = False
    """Learn equal rows once, and none that is also an evaluation row."""
    max_length: int = Field(default=2048, ge=2)
    """The longest row in tokens."""
    overlong: Literal["drop", "truncate_prompt", "truncate_end", "split", "error"] = "drop"
    """What to do with longer rows; plain text is always split."""
    packing: bool = False
    """Put the rows of a step behind one another instead of padding them, so that a pass computes
    memory.micro_batch_size x max_length tokens at most; each row sees itself only, and a step
    learns from the same rows either way."""
    share_prefixes: Literal["auto"] | bool = "auto"
    """Compute the tokens that packed rows begin with in common, such as a system prompt, once a
    pass: the same losses and gradients. auto: where it is the faster way."""
    shuffle: bool = True
    """A new order each epoch, a pure function of (seed, epoch)."""
    streaming: bool = False
    """Learn rows as they are read, without a first pass over them; needs train.max_steps."""
    shuffle_buffer: int = Field(default=10_000, ge=1)
    """Rows that a streamed run shuffles among each other."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Refuse faulty rows, or leave them out and count them, up to 1% of a source."""
    cache_dir: str | None = None
    """Where encoded rows are kept by content; without it qtune's folder in the user's cache."""


def _train_on(value: Any) -> Any:
    """`completion` is the same word for rows that are no chats."""
    return "assistant" if value == "completion" else value


class LossSection(Section):
    """Which tokens are learnt, and from whom: from their labels, or from a teacher too."""

    train_on: Annotated[
        Literal["assistant", "last_assistant", "all", "field"], BeforeValidator(_train_on)
    ] = "assistant"
    """assistant (or completion): every answer with its end token; last_assistant: a row's last
    answer; all: every token; field: only turns that say train: true."""
    train_on_thinking: bool = True
    """Learn the reasoning that rows hold in front of an answer, or take it as given."""
    label_smoothing: Share = 0.0
    """Share of the target probability spread over the vocabulary (training only)."""
    z_loss: Annotated[Real, Field(ge=0.0)] = 0.0
    """Weight of the squared log-sum-exp of the logits, which keeps them small (training only)."""
    teacher: str | None = Field(default=None, min_length=1)
    """A model of the same tokenizer whose probabilities are learnt beside the labels (knowledge
    distillation): a Hugging Face id, a folder, or base, this model without what is trained."""
    teacher_bits: Literal[4, 8, 16] = 4
    """In how many bits the teacher's weights are held; a stored quantisation stays as it is."""
    temperature: Annotated[Real, Field(gt=0.0)] = 2.0
    """What the logits of teacher and student are divided by before they are compared."""
    soft_share: Share = 0.5
    """Weight of the divergence, times temperature squared; the labels' loss has the rest."""
    divergence: Literal["forward", "reverse"] = "forward"
    """forward: KL(teacher || student), to cover all that the teacher may say; reverse:
    KL(student || teacher), to say only what it would."""


class OptimSection(Section):
    """The update rule."""

    name: Literal[
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "adamw_8bit",
        "paged_lion_8bit",
        "lion_8bit",
        "ademamix_8bit",
        "adamw",
        "sgd",
    ] = "paged_adamw_32bit"
    """The optimizer; paged ones keep their states in unified memory on CUDA."""
    learning_rate: Annotated[Real, Field(gt=0.0)] = 2e-4
    """The peak learning rate."""
    weight_decay: Annotated[Real, Field(ge=0.0)] = 0.0
    """Decoupled weight decay of the trainable matrices."""
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the moments; momentum of sgd is the first."""
    eps: Annotated[Real, Field(gt=0.0)] = 1e-8
    """Added to the root of the second moment."""
    max_grad_norm: Annotated[Real, Field(gt=0.0)] = 0.3
    """Clip the norm of all gradients together to this."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up."""
    warmup_ratio: Share = 0.03
    """Share of the steps with a rising learning rate."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """The same in steps; wins over warmup_ratio."""
    min_lr_ratio: Share = 0.0
    """Where linear and cosine end, as a share of learning_rate."""


class TrainSection(Section):
    """How long, in what steps, and where to."""

    num_train_epochs: Annotated[Real, Field(gt=0.0)] = 1.0
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; wins over num_train_epochs."""
    batch_size: int = Field(default=16, ge=1)
    """Rows of one optimizer step, however they are split into micro-batches."""
    group_by_length: bool = False
    """Put rows of like length into one step: less padding, a less random order."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the adapter's start, of dropout and of the data order."""
    output_dir: str | None = None
    """The run folder; without it runs/<recipe name> below the working directory."""
    max_time: Duration | None = None
    """Stop between two steps after this time, such as 5h30m, with exit code 75; resumable."""


class MemorySection(Section):
    """What the plan may decide, or what you decide for it."""

    micro_batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Rows of one forward pass."""
    activations: Literal["auto"] | ActivationPolicy = "auto"
    """What is recomputed in the backward pass: nothing, all but matrix products, whole layers, or
    those with their inputs waiting in host memory."""
    kernels: Kernels = "auto"
    """How blocks are computed: plain, as transformers does; fused, which keeps less for the
    backward pass, an error where no block can be; triton: fused, and with Triton's kernels, an
    error where they cannot run; auto: fused and with these kernels, wherever either can be."""
    base: Literal["auto"] | Base = "auto"
    """Where the frozen 4-bit layers are: on the device (resident), or in host memory or on disk,
    from where each comes when it is its turn (stream)."""
    dequantized_layers: Literal["auto", "all"] | Annotated[int, Field(ge=0)] = "auto"
    """Layers whose quantised weights are also kept unfolded, in the compute dtype, where memory is
    left for it: saves unfolding them in every pass."""
    loss_chunk_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Supervised positions whose logits exist at a time."""
    budget: Size | None = None
    """Device memory the run may use, such as 20GB; without it all that is free."""
    on_oom: Literal["error", "shrink"] = "error"
    """What happens when memory runs out in a step: the run stops (exit 5) and can go on, or the
    step is done again in micro-batches of half the rows, as are the rest; the loss is the same."""


class WatchdogSection(Section):
    """When a run counts as diverged (exit 6), beside losses and gradients that are not finite."""

    loss_limit: Annotated[Real, Field(gt=0.0)] | None = None
    """Stop when a step's loss is above this, before its update."""
    grad_norm_limit: Annotated[Real, Field(gt=0.0)] | None = None
    """Stop when a step's gradient norm, before clipping, is above this."""
    patience: int = Field(default=1, ge=1)
    """How many steps in a row must be above a limit."""


class EvalSection(Section):
    """When and what is measured on the held-out rows."""

    steps: int | None = Field(default=None, ge=1)
    """Evaluate each so many optimizer steps; without it at the start and the end only."""
    at_start: bool = True
    """Evaluate once before the first step."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows of one evaluation pass; without it the micro-batch size."""
    generate_rows: int = Field(default=0, ge=0)
    """Held-out rows answered by greedy decoding for exact match and token F1."""
    max_new_tokens: int = Field(default=64, ge=1)
    """The longest answer."""


class CheckpointSection(Section):
    """What a run saves on its way, so that it can go on after any end, and what it leaves."""

    steps: int | None = Field(default=None, ge=1)
    """Save each so many steps, beside each evaluation and the end."""
    every: Duration | None = None
    """Save when so much time has passed since the last checkpoint, such as 30m."""
    keep: int = Field(default=2, ge=1)
    """How many of the newest checkpoints stay, beside the best one."""
    resume: Literal["never", "auto"] = "never"
    """auto: go on with the run in the output folder when it is this one, else begin."""
    metric: Literal["loss", "exact_match", "token_f1", "accuracy", "macro_f1", "matthews"] = "loss"
    """The held-out measure that names the best weights; the last three are a classification's."""
    final: Literal["best", "last"] = "best"
    """Which weights adapter/ holds; the others are in checkpoints/."""


class GatesSection(Section):
    """What a finished run must have reached, else it exits with 9; the adapter stays."""

    max_loss: Annotated[Real, Field(gt=0.0)] | None = None
    """The held-out loss of the result, at most."""
    max_perplexity: Annotated[Real, Field(ge=1.0)] | None = None
    """The held-out perplexity of the result, at most."""
    min_exact_match: Share | None = None
    """The share of held-out answers that are exactly right, at least."""
    min_token_f1: Share | None = None
    """The mean token F1 of the held-out answers, at least."""
    min_accuracy: Share | None = None
    """The share of held-out rows that a classification labels rightly, at least."""
    min_macro_f1: Share | None = None
    """The F1 of a classification's labels, each counted alike, at least."""
    min_loss_drop: Real | None = None
    """By how much the held-out loss is below the untouched base's, at least; 0: no worse."""
    min_exact_match_gain: Real | None = None
    """By how much exact match is above the untouched base's, at least."""
    min_token_f1_gain: Real | None = None
    """By how much token F1 is above the untouched base's, at least."""
    max_peak_memory: Size | None = None
    """The most memory that training held (device, or host on a CPU), such as 24GB."""
    min_tokens_per_second: Annotated[Real, Field(gt=0.0)] | None = None
    """Tokens a second over all training steps, at least."""
    max_wall_time: Duration | None = None
    """From the start of the process to the result, such as 2h."""


class LoggingSection(Section):
    """What is written while training."""

    steps: int = Field(default=1, ge=1)
    """Log each so many optimizer steps."""
    profile_steps: Annotated[tuple[Step, Step], Field(strict=False)] | None = None
    """First and last optimizer step to record into profile/: a trace, and on a GPU a snapshot of
    its memory."""
    report_to: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow", "comet_ml", "trackio"], ...],
        Field(strict=False),
    ] = ()
    """Trackers of accelerate, beside metrics.jsonl."""


MergeBase = Literal["dequantized", "original"]
MergeDtype = Literal["auto", "bfloat16", "float16", "float32"]


class MergeSection(Section):
    """How the adapter is folded into full weights."""

    base: MergeBase = "dequantized"
    """Add to the weights that were trained on, or to the 16-bit originals (another model)."""
    dtype: MergeDtype = "auto"
    """dtype of the written weights; auto keeps that of the base."""
    max_shard_size: Size = "5GB"
    """The largest weight file."""
    max_kl: Annotated[Real, Field(ge=0.0)] = 1e-4
    """Refuse a merged model whose mean KL to the trained one is above this (nats per token)."""


class PinsSection(Section):
    """What a run was made of, as recipe.lock.yaml keeps it: another file or base is refused."""

    data: dict[str, str] = {}
    """sha256 of the local data files: train.0, or train.0/name for one of several."""
    rows: dict[str, str] = {}
    """sha256 of the encoded rows, train and eval: tokenizer, template and settings count."""
    base: str | None = None
    """Fingerprint of the base model."""
    packages: dict[str, str] = {}
    """Versions of qtune and of the libraries; another one is only said."""


class Recipe(Section):
    """A whole recipe."""

    model: ModelSection
    data: DataSection
    quantization: QuantizationSection = QuantizationSection()
    method: MethodConfig = LoraConfig()
    loss: LossSection = LossSection()
    optim: OptimSection = OptimSection()
    train: TrainSection = TrainSection()
    memory: MemorySection = MemorySection()
    watchdog: WatchdogSection = WatchdogSection()
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    gates: GatesSection = GatesSection()
    logging: LoggingSection = LoggingSection()
    merge: MergeSection = MergeSection()
    pins: PinsSection = PinsSection()
