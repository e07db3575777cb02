"""Going on from another run, with the same abilities or with some added."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from orbax.checkpoint import v1 as ocp

from dcft_jax.mixture.elastic import carry_over
from dcft_jax.sharding import match_sharding
from dcft_jax.training.composition import weights_and_shares
from dcft_jax.training.run import Run, abstract_state, jit_init
from dcft_jax.training.saved import check_origin, load_parts
from dcft_jax.training.state import MixtureState, TrainState


def continue_run(run: Run) -> TrainState:
    """The last state of `run.continue_from`, in the shape of this run.

    Parameters, optimizer, step, positions of the data streams and the mixture go on;
    added abilities enter at the prior, with a stream of their own from its start. What
    the resolver averages over steps begins anew, and so does the state of another
    mixture rule.

    Raises:
      ValueError: there is no checkpoint, an ability is missing here, or tokenizer or
        model are others.
    """
    folder = Path(run.config.run.continue_from)
    field = f"config.run.continue_from = {str(folder)!r}"
    old_config = json.loads((folder / "config.json").read_text())
    index_K = _places(field, list(old_config["abilities"]), list(run.abilities))
    fresh = jit_init(run)
    with ocp.training.Checkpointer(str(folder.absolute() / "checkpoints")) as saved:
        check_origin(saved, run.data.tokenizer.content_hash, run.base_hash, field)
        old = _load(saved, run, field)
    same_rule = old_config["mixture"]["rule"] == run.config.mixture.rule
    mixture = _carry_mixture(run, old, fresh.mixture, index_K, same_rule)
    run.console.print(
        f"Going on from {folder} at step {int(old['step'])} with "
        f"{len(run.abilities) - len(index_K)} more abilities."
    )
    return dataclasses.replace(
        fresh,
        step=old["step"],
        params=old["params"],
        opt_state=old["opt_state"],
        mixture=match_sharding(mixture, fresh.mixture),
    )


def _places(field: str, old: list[str], new: list[str]) -> list[int]:
    missing = [name for name in old if name not in new]
    if missing:
        raise ValueError(
            f"{field}: it trained {missing}, which are not among the abilities here; "
            "abilities can be added, not dropped (give them a low max_weight instead)"
        )
    return [new.index(name) for name in old]


def _load(saved: ocp.training.Checkpointer, run: Run, field: str) -> dict[str, Any]:
    """Step, parameters, optimizer and mixture, the latter as it was saved."""
    wanted = abstract_state(run)
    everywhere = NamedSharding(run.mesh, PartitionSpec())

    def as_saved(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    stored = saved.checkpointables_metadata(saved.latest).metadata["state"]
    target = {
        "step": wanted.step,
        "params": wanted.params,
        "opt_state": wanted.opt_state,
        "mixture": jax.tree.map(as_saved, stored["mixture"]),
    }
    try:
        return load_parts(saved, saved.latest, target)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{field}: model or optimizer are others: {error}") from error


def _carry_mixture(
    run: Run, old: Any, fresh: MixtureState, index_K: list[int], same_rule: bool
) -> MixtureState:
    composition, mixture = run.program.composition, old["mixture"]
    added_K = ~np.isin(np.arange(len(run.abilities)), index_K)
    added = float(composition.prior_K[added_K].sum())
    rule = fresh.rule
    if same_rule:
        rule = carry_over(mixture["rule"], fresh.rule, index_K, added)
    tier_rule = carry_over(mixture["tier_rule"], fresh.tier_rule, index_K, added)
    credit_C, rows_C = _carry_parts(run, mixture, fresh, index_K)
    weights_K, shares_C = weights_and_shares(
        composition, rule, tier_rule, rows_C, credit_C, old["step"]
    )
    apart = {
        "rule": rule,
        "tier_rule": tier_rule,
        "credit_C": credit_C,
        "rows_C": rows_C,
        "weights_K": weights_K,
        "shares_C": shares_C,
    }
    nothing = dict.fromkeys(apart, ())
    rest = dataclasses.replace(fresh, **nothing)
    carried = carry_over({**mixture, **nothing}, rest, index_K, added)
    return dataclasses.replace(carried, **apart)


def _carry_parts(
    run: Run, mixture: Any, fresh: MixtureState, index_K: list[int]
) -> tuple[jax.Array, jax.Array]:
    """Credit and stream positions of the components that were there."""
    ability_C, _ = run.program.composition.parts
    # Those of ability 0, then of 1, and so on, in the old run as in this.
    own_C = np.concatenate([np.flatnonzero(ability_C == k) for k in index_K])
    old_rows_C = np.asarray(mixture["rows_C"])
    if len(own_C) != len(old_rows_C):
        raise ValueError(
            f"config.abilities.*.tiers: there were {len(old_rows_C)} streams and there "
            f"are {len(own_C)} of the same abilities; tiers must stay as they were"
        )
    credit_C, rows_C = np.array(fresh.credit_C), np.array(fresh.rows_C)
    credit_C[own_C], rows_C[own_C] = mixture["credit_C"], old_rows_C
    return jnp.asarray(credit_C), jnp.asarray(rows_C)
