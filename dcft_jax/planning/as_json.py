"""A plan as plain numbers."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from dcft_jax.planning.advice import advise
from dcft_jax.planning.plan import Plan
from dcft_jax.planning.traffic import Collective, axes_of

GIB = 2**30


def as_json(plan: Plan) -> dict[str, Any]:
    """JSON-able; null where something is not known. Bytes and GiB are of one chip,
    FLOPs of all.
    """
    needed, speed = plan.hbm_bytes, plan.roofline
    return {
        "topology": plan.topology or None,
        "device_kind": plan.mesh.devices.flat[0].device_kind,
        "num_chips": plan.mesh.size,
        "mesh": dict(plan.mesh.shape),
        "num_layers": plan.program.model.num_layers,
        "parameters": plan.num_params,
        "trained_parameters": plan.num_trained,
        "tokens_per_step": plan.tokens_per_step,
        "hbm_gib_per_chip": None if needed is None else needed / GIB,
        "hbm_capacity_gib": plan.capacity_gib,
        "fits": plan.fits,
        "hbm_gib_by_kind": {n: size / GIB for n, size in plan.hbm_by_kind.items()},
        "flops_per_step": plan.train.flops,
        "flops_per_token": plan.train.flops / plan.tokens_per_step,
        "plain_flops_per_step": plan.plain_flops,
        "collective_bytes": by_kind_and_axis(plan.train.collectives, plan.mesh),
        "compile_seconds": plan.train.seconds + plan.eval.seconds,
        "step_seconds_estimate": speed.estimate if speed else None,
        "step_seconds_without_overlap": speed.without_overlap if speed else None,
        "step_seconds_by_resource": speed._asdict() if speed else None,
        "bound_by": speed.bound_by if speed else None,
        "mfu_estimate": plan.mfu,
        "epochs": _epochs(plan),
        "epochs_unknown": plan.sizes.unknown or None,
        "refusal": plan.train.refusal or plan.eval.refusal or None,
        "advice": advise(plan),
    }


def by_kind_and_axis(
    moved: Sequence[Collective], mesh: Mesh
) -> dict[str, dict[str, int]]:
    """Kind -> mesh axes -> bytes that one chip gets in a step."""
    table: defaultdict[str, defaultdict[str, int]] = defaultdict(
        lambda: defaultdict(int)
    )
    for one in moved:
        table[one.kind][axes_of(one.groups, mesh)] += one.total
    return {kind: dict(sorted(axes.items())) for kind, axes in sorted(table.items())}


def _epochs(plan: Plan) -> dict[str, list[float]] | None:
    """Ability -> passes over each of its tiers."""
    epochs_KT = plan.epochs_KT
    if epochs_KT is None:
        return None
    names = list(plan.config.abilities)
    return {
        name: [round(float(x), 4) for x in epochs_T if not math.isnan(x)]
        for name, epochs_T in zip(names, epochs_KT, strict=True)
    }
