"""Specialists as adapters: one for each ability, trained on that ability alone.

What is interpolated is the change of the kernels, `s A B`, not A and B: means of
factors would have products of one specialist's A with another's B in them, and would
depend on how each change happens to be factored (`A R` and `R^-1 B` are the same).
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dcft_jax.data import Rows
from dcft_jax.meta.lab import Lab, cached_population
from dcft_jax.meta.plan import make_bank, make_plan
from dcft_jax.meta.population import train_population
from dcft_jax.models import LoRA, combine, init, merge
from dcft_jax.models.lora import TARGETS

# Adapters are trained at ten times the learning rate of all parameters (Schulman et
# al. 2025, "LoRA Without Regret"); nothing is tuned here.
RATE = 10.0


def adapter_specialists(
    lab: Lab,
    base: Any,
    rows: Sequence[Rows],
    rank: int,
    state_path: Path,
    advance: Callable[[int], None] = lambda steps: None,
) -> Any:
    """Parameters of the K specialists with their adapters merged, leaves [K, ...].

    All adapters start from the same A and from B = 0, and the specialists see the data
    that the corner models of a population see.

    Args:
      rows: train rows of each ability.
      rank: of the adapters, on every projection.
      state_path: see `train_population`; removed at the end.
    """
    settings, K = lab.settings, len(rows)
    lora = LoRA(rank, float(rank), TARGETS, rank_stabilised=False)
    model = dataclasses.replace(lab.model, lora=lora)
    drawn = init(model, jax.random.key(settings.seed))
    training = dataclasses.replace(
        settings.training,
        learning_rate=RATE * settings.training.learning_rate,
        stops=(),
    )
    trained = train_population(
        cached_population(model, training, settings.max_predicted),
        jax.tree.map(np.asarray, combine(drawn, base)),
        make_bank(rows),
        make_plan(np.eye(K), [0] * K, rows, training),
        training,
        lambda params_K: {},
        state_path,
        advance=advance,
    )
    state_path.unlink(missing_ok=True)
    return jax.vmap(partial(merge, lora))(trained.params)
