"""The sections of a recipe that name what is learnt: model, data, quantization, loss.

The text under a key is its documentation: `qtune schema` prints it, and faults quote it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from qtune.recipe.section import ChatTemplate, Names, Real, Section, Share

Task = Literal["causal", "classification"]


class ModelSection(Section):
    """Which base model."""

    name_or_path: str = Field(min_length=1)
    """A Hugging Face id, or a folder (relative to the file that names it)."""
    task: Task = "causal"
    """What is learnt: the next token, or the label of a whole text or image by a head of its own,
    on an encoder (BERT, ViT) or a decoder (Llama); the key task at the top is the same."""
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
    """A json, jsonl, csv, tsv, txt, parquet or arrow file, a folder or a glob of such files, a
    folder of folders of images, one for each label, or a Hugging Face data set id. Columns image
    (a path beside the file) and label name images, too."""
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
    distillation): a Hugging Face id, a folder, or base, this model without what is trained; or a
    folder of qtune data teach: what one wrote of these rows, which needs no memory for it."""
    teacher_bits: Literal[4, 8, 16] = 4
    """In how many bits the teacher's weights are held; a stored quantisation stays as it is."""
    temperature: Annotated[Real, Field(gt=0.0)] = 2.0
    """What the logits of teacher and student are divided by before they are compared."""
    soft_share: Share = 0.5
    """Weight of the divergence, times temperature squared; the labels' loss has the rest."""
    divergence: Literal["forward", "reverse"] = "forward"
    """forward: KL(teacher || student), to cover all that the teacher may say; reverse:
    KL(student || teacher), to say only what it would."""
