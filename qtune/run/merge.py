"""`qtune merge`: fold an adapter into full weights and prove that they are the trained model."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

import qtune
from qtune import data, merging, models, plan
from qtune.data.encode.settings import ChatSettings
from qtune.data.source import first_rows
from qtune.errors import CheckError, Fault, QtuneError, ResourceError, UsageError
from qtune.merging import fidelity, layerwise
from qtune.methods.adapter_file import digest
from qtune.models.files import locate
from qtune.models.pruning import REPORT as PRUNED
from qtune.recipe.results import MergeSection
from qtune.run import base_choice, cards, requantized
from qtune.run.allocator import give_back_at_once, keep_for_the_next
from qtune.run.combined import Asked, together
from qtune.run.memory import held_bytes
from qtune.run.reading import load_reader
from qtune.run.subject import load, refuse_overrides, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from qtune.merging import Fidelity, Merge, MergeReport
    from qtune.methods import AdapterFile
    from qtune.recipe.inputs import ModelSection
    from qtune.run.display import Display
    from qtune.run.subject import Subject

SAMPLE_ROWS = 64
POSITIONS = 512  # of a model that is verified layer by layer
LOGITS_AT_ONCE = 10  # the trained model's, the merged one's, those just made, and room to compare
CPU = torch.device("cpu")


def merge(
    thing: str,
    target: Path,
    *,
    base: str | None = None,
    overrides: Sequence[str] = (),
    settings: Mapping[str, str | bool] | None = None,
    asked: Asked | None = None,
    verify: bool = True,
    display: Display,
) -> dict[str, Any]:
    """Write the merged model of a run or an adapter to the new folder `target`.

    `settings` are keys of the recipe's merge section, over it. With `asked`, other adapters of the
    same base are combined with the first before.
    """
    if asked is not None:
        subject, adapter = together(thing, asked, base=base, overrides=overrides)
    else:
        subject = resolve(thing, base=base, overrides=overrides)
        refuse_overrides(subject, overrides)
        adapter = subject.read_adapter()
    section = subject.recipe.merge if subject.recipe else MergeSection()
    section = _with(section, settings or {})
    if section.quantize != "none" and not (verify and subject.model.task == "causal"):
        raise UsageError(
            "what a quantised language model loses is measured when it is verified",
            place="--quantize",
        )
    shard_bytes = plan.parse_size(section.max_shard_size, place="merge.max_shard_size")
    work = _prepared(subject, adapter, section, display)
    choice: dict[str, Any] = {}
    read = [subject.run] if subject.run else [adapter.folder]
    limit = plan.parse_size(section.max_memory, place="merge.max_memory")
    merging.preflight(work, target, protected=read, max_memory=limit - held_bytes())
    if section.base == "auto":
        work, choice = base_choice.choose(subject, work, display)
        section = section.model_copy(update={"base": work.base})
    trained = trained_model(subject, adapter, work, section, display) if verify else None
    keep_for_the_next()
    lossy = trained is not None and section.quantize != "none"
    report = merging.write(
        work,
        target,
        max_shard_bytes=shard_bytes,
        verify=trained.check if trained else _no_check,
        card=partial(merging.card, facts=cards.facts_of(subject, work.folder)),
        quantize=partial(requantized.quantize, subject, trained) if trained and lossy else None,
        on_progress=partial(display.progress, "merging"),
    )
    told = _told(report, trained) | {"keep_mask": section.keep_mask, "auto": choice or None}
    if asked is not None:
        told["combined"] = adapter.facts["combined"]
    return {"thing": subject.name, "output": str(target), **told}


def _prepared(
    subject: Subject, adapter: AdapterFile, section: MergeSection, display: Display
) -> Merge:
    """Every edit with its place and the config of the result, before a weight is read."""
    edits = adapter.merge_edits()
    folder = models.resolve(subject.model)
    adapter.require_base(models.fingerprint(folder))
    if (folder / PRUNED).is_file() and not section.keep_mask:
        display.line("the base is pruned: what the adapter adds fills its zeros (--keep-mask)")
    work = merging.prepare(
        folder,
        subject.model,
        subject.quantization,
        edits,
        base=section.base,
        dtype=None if section.dtype == "auto" else getattr(torch, section.dtype),
        tokenizer_folder=locate(subject.model.tokenizer) if subject.model.tokenizer else folder,
    )
    changed = adapter.merged_config(work.layout.config)
    identity = {
        "base": models.fingerprint(folder),
        "adapter": digest(adapter.tensors),
        "config": adapter.raw,
        "qtune": qtune.__version__,
    }
    layout = replace(work.layout, config=changed)
    work = replace(work, chat=_chat(subject), layout=layout, identity=identity)
    if section.keep_mask:
        return merging.keep_zeros(work)
    return work


def _chat(subject: Subject) -> merging.Chat | None:
    """The recipe's chat template, which the merged model brings along instead of the base's."""
    if subject.model.chat_template is None or subject.model.task == "classification":
        return None
    tokenizer = models.load_tokenizer(subject.model)
    settings = ChatSettings(subject.model.chat_template_kwargs)
    asked = data.Prompter(tokenizer, layout="chat", settings=settings)
    asked.ids("a")  # the end of an answer is known once one is written
    return merging.Chat(tokenizer.chat_template, tuple(sorted(asked.stop_ids)))


def _with(section: MergeSection, settings: Mapping[str, str | bool]) -> MergeSection:
    try:
        return MergeSection.model_validate(section.model_dump() | dict(settings))
    except ValidationError as error:
        faults = [
            Fault(
                message=f"{fault['input']!r} {str(fault['msg']).removeprefix('Value error, ')}",
                place="--" + str(fault["loc"][0]).replace("_", "-"),
            )
            for fault in error.errors()
        ]
        raise UsageError.of(faults) from error


@dataclass
class Trained:
    """What the trained model says to the sample, and the bound on how far the merge may be."""

    rows: Sequence[Sequence[int] | Tensor]
    logits: list[Tensor]
    source: str
    section: MergeSection
    attention: str
    kind: str
    """transformers' class that loads the merged model."""
    display: Display
    layerwise: ModelSection | None = None
    """The model's section, where it is too large to be verified whole."""

    def check(self, folder: Path) -> Fidelity:
        """Load the merged folder in plain transformers, or, too large for it, layer by layer;
        `CheckError` when it is another model."""
        give_back_at_once()
        found = self._layer_by_layer(folder) if self.layerwise else self._whole(folder)
        judged = self.section.base == "dequantized" and not self.section.keep_mask
        if judged and not found.kl <= self.section.max_kl:
            raise CheckError(
                f"the merged model is not the trained one: mean KL {found.kl:.2e} nats per token, "
                f"allowed {self.section.max_kl:.2e} (top-1 agreement {100 * found.top1:.2f} %)",
                place="merge.max_kl",
                hint=_way_out(self.section),
            )
        return found

    def _whole(self, folder: Path) -> Fidelity:
        self.display.line("verifying: the merged model in plain transformers")
        return fidelity.compare(self.logits, _plain(folder, self.attention, self.kind), self.rows)

    def _layer_by_layer(self, folder: Path) -> Fidelity:
        assert self.layerwise is not None
        self.display.line("verifying: the merged model, layer by layer")
        section = self.layerwise.model_copy(update={"name_or_path": str(folder)})
        rows = [row for row in self.rows if not isinstance(row, torch.Tensor)]
        return fidelity.against(
            self.logits, layerwise.logits(layerwise.merged(folder, section), rows)
        )


def trained_model(
    subject: Subject, adapter: AdapterFile, work: Merge, section: MergeSection, display: Display
) -> Trained:
    """The logits of quantised base and live adapter in fp32 compute; the model is let go again.

    Where both models do not fit into merge.max_memory, they are computed layer by layer.
    """
    limit = plan.parse_size(section.max_memory, place="merge.max_memory")
    config = work.blueprint.network.config
    if not plan.sees_images(config.to_dict()):
        vocabulary = int(config.get_text_config().vocab_size)
        needed = held_bytes() + 4 * work.parameters + fidelity.kept_bytes(vocabulary)
        if needed > limit:
            with suppress(layerwise.NeedsWhole):
                return _trained_layerwise(subject, adapter, work, section, display)
    rows: Sequence[Sequence[int] | Tensor]
    if plan.sees_images(config.to_dict()):
        check_memory(work.parameters, config.num_labels)
        rows, source = sample_images(subject, display)
    else:
        vocabulary = int(config.get_text_config().vocab_size)
        check_memory(work.parameters, vocabulary)
        rows, source = sample_rows(subject, vocabulary, display)
    loading = partial(display.progress, "loading")
    bare = replace(for_cpu(subject), adapter=None)
    loaded = load(bare, device=CPU, on_progress=loading)
    adapter.attach(loaded.base.model, base_fingerprint=loaded.base.fingerprint)
    positions = sum(1 if isinstance(row, torch.Tensor) else len(row) for row in rows)
    display.line(f"verifying on {positions:,} positions of {source}")
    fidelity.widen(loaded.base.model)
    logits = fidelity.all_logits(loaded.base.model, rows)
    # what it ran with: a family without sdpa falls back to eager
    attention = str(loaded.base.model.config._attn_implementation)
    del loaded
    gc.collect()
    kind = merging.auto_class(work.blueprint.network)
    return Trained(rows, logits, source, section, attention, kind, display)


def _trained_layerwise(
    subject: Subject, adapter: AdapterFile, work: Merge, section: MergeSection, display: Display
) -> Trained:
    """As `trained_model`, with no more in memory than the adapter and the logits."""
    limit = plan.parse_size(section.max_memory, place="merge.max_memory")
    vocabulary = int(work.blueprint.network.config.get_text_config().vocab_size)
    here = for_cpu(subject)
    network = layerwise.trained(work.folder, here.model, subject.quantization, adapter)
    room = max(limit - held_bytes(), 0) // (4 * LOGITS_AT_ONCE * vocabulary)
    rows, source = sample_rows(subject, vocabulary, display, most=max(16, min(POSITIONS, room)))
    display.line(f"verifying on {sum(map(len, rows)):,} positions of {source}, layer by layer")
    logits = layerwise.logits(network, rows)
    attention = str(network.config._attn_implementation)  # type: ignore[union-attr]
    kind = merging.auto_class(network)
    return Trained(rows, logits, source, section, attention, kind, display, here.model)


def for_cpu(subject: Subject) -> Subject:
    """The subject with a kernel that a CPU has: FlashAttention computes what sdpa computes."""
    if subject.model.attn_implementation != "flash_attention_2":
        return subject
    return replace(subject, model=subject.model.model_copy(update={"attn_implementation": "sdpa"}))


def sample_rows(
    subject: Subject, vocabulary: int, display: Display, *, most: int = fidelity.MAX_POSITIONS
) -> tuple[list[list[int]], str]:
    """Rows of the run's data (held-out ones if it has some), else fixed random tokens."""
    if subject.recipe is not None:
        section = subject.recipe.data
        sources = first_rows(section.eval or section.train, SAMPLE_ROWS)
        try:
            rows = data.read_eval(sources, subject.recipe, models.load_tokenizer(subject.model))
            # behind the text of a classification stands its label
            end = -1 if subject.model.task == "classification" else None
            ids = [row.input_ids[:end] for row in rows]
            found = fidelity.sample(ids, vocabulary=vocabulary, most=most)
        except QtuneError as error:
            display.line(f"the run's data cannot be read any more: {error}")
        else:
            return found, "the held-out rows" if section.eval else "the training rows"
    found = fidelity.sample(fidelity.fixed_rows(vocabulary), vocabulary=vocabulary, most=most)
    return found, "random tokens"


def sample_images(subject: Subject, display: Display) -> tuple[list[Tensor], str]:
    """Pixels of images of the run's data (held-out ones if it has some), else fixed random ones."""
    pictures = load_reader(subject.model)
    if subject.recipe is not None:
        section = subject.recipe.data
        sources = first_rows(section.eval or section.train, SAMPLE_ROWS)
        try:
            rows = data.read_eval(sources, subject.recipe, pictures)
            found = list(pictures.pixels(rows[:SAMPLE_ROWS]))
        except QtuneError as error:
            display.line(f"the run's data cannot be read any more: {error}")
        else:
            return found, "the held-out images" if section.eval else "the training images"
    return pictures.noise(8), "random pixels"


def check_memory(parameters: int, vocabulary: int) -> None:
    """`ResourceError` unless the larger of the two models fits into this machine's free memory."""
    needed = 4 * parameters + fidelity.kept_bytes(vocabulary)
    free = plan.Machine.probe().host_memory
    if 0 < free < needed:
        raise ResourceError(
            f"verifying the merge needs {plan.human(needed)} of host memory (the merged model in "
            f"fp32), {plan.human(free)} are free",
            hint="merge on a larger machine, or add --no-verify and check the result elsewhere",
        )


def _plain(folder: Path, attention: str, kind: str) -> Any:
    """The folder as any user of transformers loads it, in fp32; `CheckError` if keys are left."""
    import transformers
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, facts = getattr(transformers, kind).from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
            trust_remote_code=False,
        )
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    left = {key: sorted(map(str, names)) for key, names in facts.items() if names}
    if left:
        raise CheckError(f"transformers cannot load the merged model whole: {left}")
    return model


def _no_check(_: Path) -> None:
    logging.getLogger(__name__).info("not verified")


def _way_out(section: MergeSection) -> str:
    if section.dtype in ("bfloat16", "float16", "auto"):
        return "nothing was written; merge with --dtype float32, or raise merge.max_kl"
    return "nothing was written; see --base and merge.max_kl"


def _told(report: MergeReport, trained: Trained | None) -> dict[str, Any]:
    told = report.to_dict()
    if trained is not None:
        told["verification"] |= {"rows": trained.source}
    return told
