"""What training, its dry run and its tests share: plan, rows, and a model that can learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qtune import data, losses, methods, models, plan, runs
from qtune.errors import ModelError, ResourceError, UsageError
from qtune.ops import trial
from qtune.ops.linears import class_heads
from qtune.ranks import ALONE
from qtune.run.allocator import give_back_at_once
from qtune.run.memory import limit
from qtune.run.positions import too_long
from qtune.run.quantize import provide
from qtune.run.reading import doing, load_reader
from qtune.run.shapes import shape_for
from qtune.run.teaching import check_tokens, load_teacher
from qtune.run.threads import limit_threads

if TYPE_CHECKING:
    from qtune.data import Prepared, Streamed
    from qtune.losses import Teacher
    from qtune.methods.base import Method
    from qtune.models import Base, Inventory
    from qtune.plan import Plan
    from qtune.ranks import Ranks, Seat
    from qtune.recipe import Loaded
    from qtune.recipe.methods import MethodConfig
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Journal
    from qtune.runs import RunFolder


@dataclass
class Learner:
    """A frozen base with a method attached, and its tokenizer."""

    base: Base
    method: Method
    tokenizer: Any
    base_name: str
    shares_prefixes: bool = False
    """Packed rows that begin alike have their beginning computed once."""
    teacher: Teacher | None = None
    """Whose probabilities are learnt beside the labels."""
    kept_bytes: dict[str, int] = field(default_factory=dict)
    """What stayed in memory from step to step, by part; empty before it has trained."""

    def save(self, folder: Path) -> None:
        """Write the adapter as a new folder in PEFT's format."""
        methods.save(
            folder,
            self.method,
            base_model=self.base_name,
            base_fingerprint=self.base.fingerprint,
            recipe_note=self._note(),
        )

    def _note(self) -> dict[str, Any]:
        section = self.base.section
        note = {"quantization": self.base.quantization.model_dump(mode="json")}
        if section.task == "classification":
            note["model"] = {"task": section.task, "labels": section.labels}
        return note


def run_folder(loaded: Loaded) -> RunFolder:
    """Where a recipe's run goes, below the working directory unless it says otherwise."""
    return runs.RunFolder(Path(loaded.recipe.train.output_dir or Path("runs") / loaded.name))


def decide(asked: Recipe, place: Seat = ALONE.seat) -> Plan:
    """Plan a recipe for this machine and the processes that train together, or refuse what cannot
    fit (`ResourceError`)."""
    shape = shape_for(asked)
    plan.refuse_lengths(asked, shape)
    # an empty file is for the data layer to tell, with its name
    rows = plan.count_rows(asked.data).rows or None
    machine = machine_of(place)
    decided = plan.make(asked, machine, shape, rows=rows, processes=place.size)
    decided.check()
    return decided


def machine_of(place: Seat) -> plan.Machine:
    """What each process of this machine has. Where nvidia-smi names no GPU that torch has, of a MIG
    device or in a container without it, what torch says of its first one; `ResourceError` for one
    that torch cannot use."""
    found = plan.Machine.probe_for(place.local_size)
    if (found.device == "cuda") == torch.cuda.is_available():
        return found
    if found.device == "cuda":
        raise ResourceError(
            f"there is an {found.name}, which this torch ({torch.__version__}) cannot use",
            place="device",
            hint="qtune doctor says why; with CUDA_VISIBLE_DEVICES= it trains on the CPU",
        )
    free, total = torch.cuda.mem_get_info(0)
    seen = plan.Machine.with_gpu((torch.cuda.get_device_name(0), total, free))
    return seen.share(place.local_size)


def read_rows(asked: Recipe, journal: Journal) -> tuple[Any, Prepared | Streamed]:
    """The tokenizer and the encoded rows; every fault of the data before any weight is read, but
    for those that a stream meets on its way."""
    tokenizer = load_reader(asked.model)
    check_tokens(asked, tokenizer)
    prepare = data.prepare_stream if asked.data.streaming else data.prepare
    prepared: Prepared | Streamed = prepare(
        asked,
        tokenizer,
        on_progress=partial(journal.progress, doing(tokenizer)),
    )
    prepared.report.refuse_judged()
    for line in prepared.report.lines():
        journal.line(line)
    for fault in too_long(asked, prepared.train, prepared.eval):
        journal.line(f"warning: {fault}")
    return tokenizer, prepared


def learner(
    asked: Recipe,
    decided: Plan,
    tokenizer: Any,
    *,
    device: torch.device,
    journal: Journal,
    ranks: Ranks = ALONE,
) -> Learner:
    """Load the base, attach the method, and prove what the plan promised about both; all `ranks`
    together."""
    limit_threads(device, journal)
    methods.create(asked.method, seed=asked.train.seed)  # its faults come before any weight
    journal.line(trial.choose(asked.memory.kernels, device))
    with ranks.one_before_the_rest():  # a copy is made once a machine
        _make_room(asked, decided, device=device, journal=journal)
    spread = models.Spread(ranks, decided.strategy, offload=decided.offload)
    base = models.load(
        asked.model,
        asked.quantization,
        device=device,
        activations=decided.activations,
        base=decided.base,
        on_progress=partial(journal.progress, "loading"),
        spread=spread,
    )
    if base.copy is not None:
        journal.line(f"the base was read from its quantised copy ({base.copy.name})")
    if base.streamed is not None:
        journal.line(base.streamed.line())
    if base.sharded is not None:
        journal.line(base.sharded.line())
    method = methods.create(method_of(asked, base.model), seed=asked.train.seed)
    method.attach(base.model, tokenizer=tokenizer)
    check_count(method, decided)
    if asked.model.task == "causal":
        losses.check_head(base.model, torch.arange(min(16, len(tokenizer)), device=device))
    if asked.data.packing:
        models.check_isolation(base.model, vocabulary=len(tokenizer))
        journal.line("packing: rows of one sequence do not see each other (tried on this model)")
    fused = models.fuse(base.model, asked.memory.kernels, decided.activations)
    journal.line(fused.line())
    if decided.dequantized_layers:
        size = models.keep_unfolded(base.model, decided.dequantized_layers)
        journal.line(f"{decided.dequantized_layers} layers kept unfolded, too: {plan.human(size)}")
    for line in inventory_lines(models.inventory(base.model)):
        journal.line(line)
    teacher = load_teacher(asked, base, method, device=device, journal=journal, ranks=ranks)
    taught = teacher.network if teacher else base.model
    shares = _shares_prefixes(asked, (base.model, taught), tokenizer, journal)
    torch.manual_seed(asked.train.seed + ranks.seat.rank)  # dropout differs, as rows do
    name = asked.model.name_or_path
    return Learner(base, method, tokenizer, name, shares_prefixes=shares, teacher=teacher)


def _make_room(asked: Recipe, decided: Plan, *, device: torch.device, journal: Journal) -> None:
    """What must be before the base is read: limits, and the copy that a streamed one comes from."""
    if asked.memory.budget is not None:
        limit(device, budget=decided.budget_bytes)
    if decided.base == "stream" or decided.strategy == "fsdp":  # layers come and go
        give_back_at_once()
    if decided.base == "stream":
        quantising = partial(journal.progress, "quantising")
        provide(asked.model, asked.quantization, say=journal.line, on_progress=quantising)


def method_of(asked: Recipe, network: Any) -> MethodConfig:
    """The recipe's method, a classifier's heads trained whole beside it."""
    heads = class_heads(network)
    if not heads:
        return asked.method
    own = getattr(asked.method, "modules_to_save", ())
    saved = (*own, *(head for head in heads if head not in own))
    return asked.method.model_copy(update={"modules_to_save": saved})


def _shares_prefixes(
    asked: Recipe, networks: tuple[Any, ...], tokenizer: Any, journal: Journal
) -> bool:
    """Whether rows may share their first tokens, tried on the model and its teacher."""
    if not asked.data.packing or asked.data.share_prefixes is False:
        return False
    reason = next(filter(None, map(models.why_apart, networks)), "")
    if not reason:
        for network in dict.fromkeys(networks):
            models.check_sharing(network, vocabulary=len(tokenizer))
        journal.line("packing: what rows of a pass begin with in common is computed once")
        return True
    if asked.data.share_prefixes is True:
        message = f"first tokens cannot be shared: {reason}"
        raise UsageError(message, place="data.share_prefixes", hint="set it to auto or false")
    return False


_KEPT = {
    "none": "activations kept",
    "selective": "matrix products kept",
    "layer": "layers recomputed",
    "offload": "layers recomputed, their inputs in host memory",
}


def plan_line(asked: Recipe, decided: Plan) -> str:
    """What was decided, in one line; `qtune plan` tells it all."""
    steps = decided.steps
    size = decided.micro_batch_size
    batch = f"{decided.gradient_accumulation_steps} x {size} rows a step"
    if asked.data.packing:
        most = f"at most {size} x {asked.data.max_length:,} tokens a pass"
        batch = f"{asked.train.batch_size} rows a step, packed, {most}"
    if decided.processes > 1:
        where = ", offloaded" if decided.offload else ""
        each = "" if asked.data.packing else " each"
        batch += f"{each}; {decided.processes} processes ({decided.strategy}{where})"
    kept = _KEPT[decided.activations]
    memory = f"{plan.human(decided.device_bytes)} of {plan.human(decided.budget_bytes)}"
    length = f"{steps.total:,} steps, {steps.warmup:,} of warm-up" if steps else "steps unknown"
    if steps and steps.warmup > steps.total:
        length += " (the learning rate never gets to its full height)"
    return f"plan: {memory}; {length}; {batch}; {kept}; {decided.optimizer}"


def inventory_lines(inventory: Inventory) -> list[str]:
    """What was loaded and attached, by how it is held: a small table."""
    lines = [f"{'model':<10} {'tensors':>8} {'parameters':>16} {'bytes':>9}"]
    for row in inventory.rows:
        size = plan.human(row.bytes)
        lines.append(f"{row.kind:<10} {row.tensors:>8,} {row.parameters:>16,} {size:>9}")
    return lines


def check_count(method: Method, decided: Plan) -> None:
    """Raise `ModelError` unless the plan counted exactly what trains."""
    count = sum(parameter.numel() for parameter in method.parameters().values())
    if count != decided.trainable_parameters:
        raise ModelError(
            f"{count:,} parameters are trainable, the plan says {decided.trainable_parameters:,}",
            hint="the model's config.json does not describe its weights",
        )
