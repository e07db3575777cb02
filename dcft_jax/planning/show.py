"""A plan as tables for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dcft_jax.planning.as_json import as_json
from dcft_jax.planning.plan import Plan
from dcft_jax.planning.roofline import ASSUMPTIONS


def show_plan(plan: Plan, console: Console) -> None:
    console.print(plan_report(as_json(plan)))


def plan_report(found: Mapping[str, Any]) -> RenderableType:
    """All that `as_json` says, to be printed."""
    parts: list[RenderableType] = [_summary(found), _hbm(found), _traffic(found)]
    if found["step_seconds_estimate"] is not None:
        parts.append(_speed(found))
    title = "Epochs over the run if the mixture stays as it starts:"
    parts.append(_lines(title, list(_epochs(found))))
    if found["refusal"]:
        parts.append(_lines("The compiler refused it:", [found["refusal"]]))
    if found["advice"]:
        parts.append(_lines("It does not fit. What to change:", found["advice"]))
    return Group(*parts)


def _summary(found: Mapping[str, Any]) -> Table:
    table = _table("Plan", "", "")
    chips = f"{found['num_chips']} x {found['device_kind']}"
    sizes = ", ".join(f"{name} {size}" for name, size in found["mesh"].items())
    trained, parameters = found["trained_parameters"], found["parameters"]
    ratio = found["flops_per_step"] / found["plain_flops_per_step"]
    for name, value in (
        ("compiled for", f"{found['topology'] or 'the devices at hand'}: {chips}"),
        ("mesh", sizes),
        ("parameters", f"{parameters:,} ({trained:,} trained)"),
        ("tokens per step", f"{found['tokens_per_step']:,}"),
        ("FLOPs per step", f"{found['flops_per_step']:.3e} of all chips"),
        ("FLOPs per token", f"{found['flops_per_token']:.3e}"),
        ("  of plain training", f"{ratio:.3f} x, without recomputation"),
        ("compile time", f"{found['compile_seconds']:.0f} s"),
    ):
        table.add_row(name, value)
    return table


def _hbm(found: Mapping[str, Any]) -> Table:
    table = _table("Memory of one chip", "", "GiB")
    for name, size in found["hbm_gib_by_kind"].items():
        table.add_row(name, f"{size:.3f}")
    needed, capacity = found["hbm_gib_per_chip"], found["hbm_capacity_gib"]
    table.add_section()
    table.add_row("needed (train or eval step)", _number(needed, "{:.3f}"))
    table.add_row("capacity", _number(capacity, "{:g}"))
    verdict = {True: "yes", False: "no", None: "unknown"}[found["fits"]]
    table.add_row("fits", verdict)
    return table


def _traffic(found: Mapping[str, Any]) -> Table:
    table = _table("Collectives of one step, of one chip", "kind", "MiB", "over")
    for kind, axes in found["collective_bytes"].items():
        for axis, size in axes.items():
            table.add_row(kind, f"{size / 2**20:,.2f}", axis)
    if not found["collective_bytes"]:
        table.add_row("unknown" if found["refusal"] else "none", "", "")
    return table


def _speed(found: Mapping[str, Any]) -> RenderableType:
    table = _table("Time of one step: an estimate from peaks", "", "seconds")
    for name, seconds in found["step_seconds_by_resource"].items():
        table.add_row(name, f"{seconds:.4f}")
    table.add_section()
    bound = f"estimate, bound by {found['bound_by']}"
    table.add_row(bound, f"{found['step_seconds_estimate']:.4f}")
    without = found["step_seconds_without_overlap"]
    table.add_row("if nothing overlaps", f"{without:.4f}")
    table.add_row("MFU of the estimate", f"{found['mfu_estimate']:.1%}")
    return Group(table, _lines("It assumes:", ASSUMPTIONS))


def _epochs(found: Mapping[str, Any]) -> Iterator[str]:
    if found["epochs"] is None:
        yield f"unknown: {found['epochs_unknown']}"
        return
    for name, epochs in found["epochs"].items():
        tiers = ", ".join(f"{number:.2f}" for number in epochs)
        yield f"{name}: {tiers}" + (" (by tier)" if len(epochs) > 1 else "")


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else form.format(value)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for i, name in enumerate(columns):
        right = i == 1 and name in ("GiB", "MiB", "seconds")
        table.add_column(name, justify="right" if right else "left")
    return table


def _lines(title: str, lines: Any) -> Text:
    return Text("\n".join([title, *(f"- {line}" for line in lines), ""]))
