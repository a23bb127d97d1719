"""`qtune merge`."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from qtune.cli.merge_options import (
    AdapterOnly,
    Again,
    Combine,
    Density,
    Dtype,
    KeepMask,
    Memory,
    Onto,
    Output,
    ShardSize,
    Things,
    Verify,
    Weights,
)
from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, BaseModel, Overrides, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing
from qtune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.recipe.results import Combination
    from qtune.run.combined import Asked


def merge(  # noqa: PLR0913 - one parameter an option
    things: Things,
    output: Output,
    onto: Onto = None,
    base_model: BaseModel = None,
    dtype: Dtype = None,
    max_shard_size: ShardSize = None,
    max_memory: Memory = None,
    quantize: Again = None,
    keep_mask: KeepMask = False,
    combine: Combine = "cat",
    weights: Weights = None,
    density: Density = None,
    adapter_only: AdapterOnly = False,
    verify: Verify = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Fold an adapter, or several of one base, into full weights that load in plain transformers.

    The model is never whole in memory. The result is compared with the trained model and kept only
    if it is the same (merge.max_kl). A merge that is killed goes on when it is run again.

    Examples:
      qtune merge runs/first -o merged
      qtune merge runs/first -o merged-fp32 --dtype float32
      qtune merge runs/first -o other --base original
      qtune merge runs/first runs/second -o both --combine svd --weights 0.7,0.3
    """
    first, *others = things
    obey_offline(first, overrides)
    asked = _asked(others, combine, weights, density, adapter_only=adapter_only)
    if adapter_only and asked is not None:
        from qtune.run.combined import write_adapter

        made = write_adapter(first, output, asked, base=base_model, overrides=overrides or ())
        _print(made, summary_of_adapter, as_json=as_json)
        return
    from qtune.run.merge import merge as run

    keys: dict[str, str | None] = {"base": onto, "dtype": dtype, "quantize": quantize}
    keys |= {"max_shard_size": max_shard_size, "max_memory": max_memory}
    settings = {key: str(value) for key, value in keys.items() if value is not None}
    with showing("qtune merge", quiet=quiet) as display:
        report = run(
            first,
            output,
            asked=asked,
            base=base_model,
            overrides=overrides or (),
            settings={**settings, **({"keep_mask": True} if keep_mask else {})},
            verify=verify,
            display=display,
        )
    _print(report, summary, as_json=as_json)


def _print(report: dict[str, Any], told: Callable[[dict[str, Any]], str], *, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        results().print(told(report), markup=False, soft_wrap=True)


def _asked(
    others: list[str],
    combine: Combination,
    weights: str | None,
    density: float | None,
    *,
    adapter_only: bool,
) -> Asked | None:
    """The combination that is asked for; None of one adapter, which takes none of its options."""
    from qtune.run.combined import Asked

    if not others:
        given = {"--weights": weights, "--density": density, "--adapter-only": adapter_only or None}
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    "is for several adapters, and one is named",
                    place=option,
                    hint="qtune export copies the adapter of a run",
                )
        return None
    try:
        numbers = tuple(float(each) for each in (weights or "").split(",") if each.strip())
    except ValueError:
        raise UsageError(
            f"{weights!r} is no list of numbers such as 0.7,0.3", place="--weights"
        ) from None
    if not all(map(isfinite, numbers)):
        raise UsageError(f"{weights!r} holds what is no number", place="--weights")
    return Asked(tuple(others), combine, numbers, density)


def summary_of_adapter(report: dict[str, Any]) -> str:
    """A combined adapter in a line."""
    shares = ", ".join(f"{weight:g}" for weight in report["weights"])
    return (
        f"{report['output']}: {len(report['adapters'])} adapters by {report['combine']} "
        f"({shares}), rank {report['rank']}, {report['bytes'] / 1e6:,.1f} MB"
    )


def summary(report: dict[str, Any]) -> str:
    """A merge in a few lines."""
    files = "file" if report["files"] == 1 else "files"
    lines = [
        f"{report['output']}: {report['edits']} of {report['tensors']} tensors edited, "
        f"{report['bytes'] / 1e6:,.1f} MB of {report['dtype']} in {report['files']} {files}, "
        f"on the {report['base']} base"
    ]
    if report["unties_embeddings"]:
        lines.append("the embedding and the head, tied in the base, are two tensors now")
    if report["rounding"] > 1e-6:
        lines.append(
            f"rounding to {report['dtype']}: {100 * report['rounding']:.2g} % of the change"
        )
    if report["keep_mask"]:
        lines.append("the zeros of the base are kept: this is another model than the trained one")
    if report["auto"] and report["auto"]["losses"]:
        told = report["auto"]
        both = ", ".join(f"{loss:.5f} on the {base} one" for base, loss in told["losses"].items())
        lines.append(f"the better base by {told['better_by']:.5f} of held-out loss: {both}")
    if "combined" in report:
        shares = ", ".join(f"{weight:g}" for weight in report["combined"]["weights"])
        lines.append(f"adapters combined by {report['combined']['how']} ({shares})")
    found = report["verification"]
    if report["quantized"]:
        lossy = report["quantized"]
        lines.append(
            f"quantised again to NF4, which is lossy: KL {lossy['kl']:.2e} nats per token to the "
            f"trained model, top-1 agreement {100 * lossy['top1']:.2f} %; before that,"
        )
    if found is None:
        lines.append("not verified")
    else:
        lines.append(
            f"against the trained model on {found['positions']:,} positions of {found['rows']}: "
            f"KL {found['kl']:.2e} nats per token (worst {found['max_kl']:.2e}), "
            f"top-1 agreement {100 * found['top1']:.2f} %"
        )
    return "\n".join(lines)
