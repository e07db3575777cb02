"""Fits an ensemble of networks to the regret of mixtures, not to mixtures.

Many mixtures of a task are nearly as good as the best one (RegMix, arXiv:2407.01492,
averages a hundred of them): what the best one is says less than what a mixture costs.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dcft_jax.meta.case import Case
from dcft_jax.meta.domain import measure_domain
from dcft_jax.meta.fitted import Fitted
from dcft_jax.meta.inputs import (
    DROPPABLE,
    Inputs,
    Statistics,
    drop,
    measure_statistics,
    pad_inputs,
    standardise,
)
from dcft_jax.meta.network import Params, Shape, correction, init, tilt
from dcft_jax.meta.regret import KL, Solved
from dcft_jax.meta.surrogate import Law, evaluate, pad

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
POWERS = (0.0, 0.5, 1.0)  # of the sizes: from uniform to proportional
FOLDS = 4
PAD_CASES = 64  # programs are compiled for multiples of so many cases


class Options(NamedTuple):
    """How it is fitted; what is cross-validated, strength and power, is not in it.

    Attributes:
        shape: of the networks.
        members: of the ensemble, a multiple of `FOLDS` for all to count alike.
        steps: of AdamW (arXiv:1711.05101), warm-up and cosine decay.
        batch: cases per step.
        learning_rate: at its highest.
        weight_decay: of AdamW; the learning rates of all steps sum to about 0.75, so
            that parameters without gradient lose half of their size.
        kl: how much relative entropy to the prior costs, in units of a case's spread.
        missing: how often each part of the embedding is taken away from a case.
        seed: of parameters, members' cases, and batches.
    """

    shape: Shape = Shape()
    members: int = 8
    steps: int = 150
    batch: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 1.0
    kl: float = KL
    missing: float = 0.15
    seed: int = 0


DEFAULT = Options()


class Draws(NamedTuple):
    """What each member sees at each step, [steps, members, batch].

    Attributes:
        index_TEB: of the case.
        power_TEB: the prior is proportional to size to this power, in [0, 1].
        keep_TEBD: 1 for each part of `DROPPABLE` that stays.
    """

    index_TEB: Any
    power_TEB: Any
    keep_TEBD: Any


class Data(NamedTuple):
    """C cases, padded to common numbers, for a jitted program.

    The laws are those of regret over spread: their minima are 0.
    """

    inputs: Inputs
    law: Law
    log_size_CK: Any


def fit(solved: Sequence[Solved], options: Options = DEFAULT) -> Fitted:
    """The ensemble that predicts mixtures with little regret.

    Each member leaves a fold of the categories out (of the tasks, where there are
    fewer than `FOLDS` categories) and draws the tasks of the others with replacement
    (Breiman 1996). The members that left a category out tell how much of the correction
    holds on new categories, and which prior is to be corrected: the strength of
    `STRENGTHS` and the power of `POWERS` are those with the least regret there. In
    training, priors are drawn between uniform and proportional to sizes.

    Raises:
      ValueError: fewer than two tasks, or options that are out of range.
    """
    cases = [one.case for one in solved]
    _check(cases, options)
    statistics = measure_statistics([case.features for case in cases])
    data = stack(solved, statistics)
    held_EC, draws = _members(cases, options)
    keys = jax.random.split(jax.random.key(options.seed), options.members)
    params = jax.vmap(functools.partial(init, options.shape))(keys)
    one_program = options._replace(seed=0)  # whatever the seed
    params = _train(one_program, params, data, draws)
    regret_CPS = _held_out_regret(options.shape, params, data, held_EC)[: len(cases)]
    mean_PS = _mean_over_tasks(regret_CPS, cases)
    power, strength = np.unravel_index(np.argmin(mean_PS), mean_PS.shape)
    return Fitted(
        params=jax.tree.map(np.asarray, params),
        statistics=statistics,
        shape=options.shape,
        strength=STRENGTHS[strength],
        power=POWERS[power],
        held_out_regret=float(mean_PS[power, strength]),
        prior_regret=float(mean_PS[power, 0]),
        domain=measure_domain(cases, statistics),
    )


def stack(solved: Sequence[Solved], statistics: Statistics) -> Data:
    """Cases as one block of arrays."""
    K = max(one.case.features.num_abilities for one in solved)
    more = -len(solved) % PAD_CASES
    inputs = [
        pad_inputs(standardise(statistics, one.case.features), K) for one in solved
    ]
    size_CK = np.ones((len(solved), K))
    for size_K, one in zip(size_CK, solved, strict=True):
        size_K[: one.case.features.num_abilities] = one.case.features.size_K
    data = Data(
        _stack(inputs),
        _stack([_relative(pad(one.law, K), one) for one in solved]),
        np.log(size_CK),
    )

    def padded(array: np.ndarray) -> jax.Array:
        kind = bool if array.dtype == bool else np.float32
        # Copies of the first case: numbers that are finite, never drawn.
        tail = np.repeat(array[:1], more, axis=0)
        return jnp.asarray(np.concatenate([array, tail]).astype(kind))

    return jax.tree.map(padded, data)


def prior_of_sizes(log_size_K: jax.Array, power: Any, valid_K: jax.Array) -> jax.Array:
    """Logarithm of the mixture proportional to `size ** power`; 0 for padding."""
    logits_K = jnp.where(valid_K, power * log_size_K, -jnp.inf)
    return jnp.where(valid_K, jax.nn.log_softmax(logits_K), 0.0)


def _check(cases: Sequence[Case], options: Options) -> None:
    tasks = {case.task for case in cases}
    if len(tasks) < 2:
        raise ValueError(
            f"{len(cases)} cases of the tasks {sorted(tasks)}: fitting needs at least "
            "2 tasks, to hold one out; collect more"
        )
    for name in ("members", "steps", "batch"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)} must be at least 1")
    if not 0 <= options.missing < 1:
        raise ValueError(f"missing={options.missing} must be in [0, 1)")


def _relative(law: Law, one: Solved) -> Law:
    """Regret over spread; in float64, as float32 loses small differences."""
    return Law(
        (law.constant - one.minimum) / one.spread,
        law.scale_M / one.spread,
        law.slope_MK,
        law.linear_K / one.spread,
        law.quadratic_KK / one.spread,
    )


def _members(cases: Sequence[Case], options: Options) -> tuple[np.ndarray, Draws]:
    """Which cases each member leaves out, [E, C], and what it sees."""
    rng = np.random.default_rng(options.seed)
    categories = [case.category for case in cases]
    tasks = [case.task for case in cases]
    groups = categories if len(set(categories)) >= FOLDS else tasks
    names = sorted(set(groups))
    folds = min(FOLDS, len(names))
    order: dict[str, int] = {}
    held_EC = np.zeros((options.members, len(cases)), bool)
    index_TEB = np.zeros((options.steps, options.members, options.batch), np.int32)
    for member in range(options.members):
        if member % folds == 0:
            order = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
        held_EC[member] = [order[name] % folds == member % folds for name in groups]
        seen = [c for c in range(len(cases)) if not held_EC[member, c]]
        by_task: dict[str, list[int]] = {}
        for c in seen:
            by_task.setdefault(tasks[c], []).append(c)
        drawn = rng.choice(sorted(by_task), len(by_task))
        pool = np.array([c for task in drawn for c in by_task[task]])
        shape = (options.steps, options.batch)
        index_TEB[:, member] = pool[rng.integers(len(pool), size=shape)]
    power_TEB = rng.random(index_TEB.shape, np.float32)
    keep_TEBD = rng.random((*index_TEB.shape, len(DROPPABLE))) >= options.missing
    return held_EC, Draws(index_TEB, power_TEB, keep_TEBD.astype(np.float32))


@functools.partial(jax.jit, static_argnums=0)
def _train(options: Options, params: Params, data: Data, draws: Draws) -> Params:
    warmup = max(1, options.steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, warmup, max(options.steps, warmup + 1)
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=options.weight_decay),
    )

    def member_step(params, state, drawn: Draws):
        batch = jax.tree.map(lambda array: array[drawn.index_TEB], data)
        slope = jax.grad(functools.partial(_loss, options))(params, batch, drawn)
        update, state = optimizer.update(slope, state, params)
        return jax.tree.map(jnp.add, params, update), state

    def step(carry, drawn: Draws):
        params, state = carry
        return jax.vmap(member_step)(params, state, drawn), None

    start = (params, jax.vmap(optimizer.init)(params))
    return jax.lax.scan(step, start, draws)[0][0]


def _loss(options: Options, params: Params, batch: Data, drawn: Draws) -> jax.Array:
    """Mean over cases of regret over spread and relative entropy to the prior."""

    def one(case: Data, drawn: Draws) -> jax.Array:
        inputs = drop(case.inputs, drawn.keep_TEBD)
        log_prior_K = prior_of_sizes(case.log_size_CK, drawn.power_TEB, inputs.valid_K)
        ratio_K = correction(options.shape, params, inputs, log_prior_K)
        weights_K = tilt(log_prior_K, ratio_K, inputs.valid_K)
        log_total = jax.nn.logsumexp(log_prior_K + ratio_K, where=inputs.valid_K)
        entropy = jnp.sum(weights_K * (ratio_K - log_total))
        return evaluate(case.law, weights_K, jnp) + options.kl * entropy

    return jnp.mean(jax.vmap(one)(batch, drawn))


@functools.partial(jax.jit, static_argnums=0)
def _held_out_regret(shape: Shape, params: Params, data: Data, held_EC) -> jax.Array:
    """Of the mean of the members that left a case out, power by strength [C, P, S]."""
    more = len(data.log_size_CK) - held_EC.shape[1]
    held_CE = jnp.pad(jnp.asarray(held_EC, jnp.float32), ((0, 0), (0, more))).T

    def one(case: Data, held_E: jax.Array, power: jax.Array) -> jax.Array:
        valid_K = case.inputs.valid_K
        log_prior_K = prior_of_sizes(case.log_size_CK, power, valid_K)
        ratio_EK = jax.vmap(correction, (None, 0, None, None))(
            shape, params, case.inputs, log_prior_K
        )
        ratio_K = held_E @ ratio_EK / jnp.maximum(held_E.sum(), 1.0)
        weights_SK = jax.vmap(lambda s: tilt(log_prior_K, s * ratio_K, valid_K))(
            jnp.array(STRENGTHS)
        )
        return evaluate(case.law, weights_SK, jnp)

    each_power = jax.vmap(one, (None, None, 0))
    return jax.vmap(each_power, (0, 0, None))(data, held_CE, jnp.array(POWERS))


def _mean_over_tasks(regret_CPS: Any, cases: Sequence[Case]) -> np.ndarray:
    """Every task counts once, in however many worlds it was measured, [P, S]."""
    regret_CPS = np.asarray(regret_CPS, np.float64)
    tasks = np.array([case.task for case in cases])
    means = [regret_CPS[tasks == task].mean(axis=0) for task in sorted(set(tasks))]
    return np.mean(means, axis=0)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
