"""Many small models trained at once, each on a mixture of its own.

All start from the same parameters and see the same rows of an ability in the same
order, as many of them as their weights say (error diffusion, as in
`dcft_jax.mixture.allocation`). One program steps all of them: `vmap` over the models,
`scan` over the steps. With several devices each trains some of the models.

Axes: N models, T steps, B rows of a step, R rows of the bank, K abilities.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dcft_jax.data import Rows
from dcft_jax.meta.plan import Plan, Training, make_bank
from dcft_jax.meta.population_state import (
    Results,
    load_state,
    save_state,
    state_key,
)
from dcft_jax.meta.segments import segment_sums
from dcft_jax.models import ModelConfig, combine, score_responses, split


class Population(NamedTuple):
    """The jitted functions.

    `chunk(state, bank, row, scale, rate) -> state`: steps on [T, N, B] rows of the bank
    with the learning rates [T]. `evaluate(params_N, rows) -> sums`, see `score`.
    """

    chunk: Callable
    evaluate: Callable


class Trained(NamedTuple):
    """`params`: leaves [N, ...]; `results`: step -> what `evaluate` found there."""

    params: Any
    results: dict[int, Results]


def make_population(
    model: ModelConfig, training: Training, max_predicted: int | None = None
) -> Population:
    """Nothing is computed yet.

    Args:
      model: the decoder; of one with adapters only these are trained.
      training: of which only weight decay and clipping count here.
      max_predicted: response tokens that a row has at most; None: L. See
        `score_responses`.
    """
    optimizer = _optimizer(training)

    def loss(trained: Any, frozen: Any, rows: dict[str, jax.Array], scale_B: jax.Array):
        params = combine(frozen, trained)
        nll_BL, _, _ = score_responses(model, params, rows, max_predicted=max_predicted)
        return jnp.sum(jnp.sum(nll_BL, axis=1) * scale_B)

    def step(params, opt_state, rows, scale_B, rate):
        trained, frozen = split(params)
        gradient = jax.grad(loss)(trained, frozen, rows, scale_B)
        updates, opt_state = optimizer.update(gradient, opt_state, trained)
        trained = jax.tree.map(lambda p, u: p - rate * u, trained, updates)
        return combine(frozen, trained), opt_state

    @partial(jax.jit, donate_argnums=0)
    def chunk(state, bank, row_TNB, scale_TNB, rate_T):
        def all_models(state, now):
            params_N, opt_state_N = state
            row_NB, scale_NB, rate = now
            rows = {name: x_RL[row_NB] for name, x_RL in bank.items()}
            step_all = jax.vmap(step, in_axes=(0, 0, 0, 0, None))
            return step_all(params_N, opt_state_N, rows, scale_NB, rate), None

        return jax.lax.scan(all_models, state, (row_TNB, scale_TNB, rate_T))[0]

    return Population(chunk, jax.jit(partial(_sums, model, max_predicted)))


def _optimizer(training: Training) -> optax.GradientTransformation:
    """Without the learning rate, which is an argument so that it does not recompile."""
    return optax.chain(
        optax.clip_by_global_norm(training.clip_norm),
        optax.scale_by_adam(b2=0.95),
        optax.add_decayed_weights(
            training.weight_decay, mask=partial(jax.tree.map, lambda x: x.ndim > 2)
        ),
    )


def _sums(
    model: ModelConfig,
    max_predicted: int | None,
    params_N: Any,
    batches: dict[str, jax.Array],
) -> dict[str, jax.Array]:
    """Per example, float32 [C, N, B, M], of rows [C, B, L]: C batches in turn."""

    def one_model(params: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        nll_BL, correct_BL, mask_BL = score_responses(
            model, params, rows, max_predicted=max_predicted
        )

        def per_example(x_BL: jax.Array) -> jax.Array:
            return segment_sums(x_BL, rows["segments"], rows["scored"].shape[-1])

        return {
            "loss_sum": per_example(nll_BL),
            "count": per_example(mask_BL),
            "wrong": per_example(mask_BL & ~correct_BL),
        }

    return jax.lax.map(
        lambda rows: jax.vmap(one_model, (0, None))(params_N, rows), batches
    )


def score(
    population: Population, params_N: Any, tasks: Sequence[Rows], batch: int = 32
) -> Results:
    """Of every model on every task.

    Args:
      params_N: parameters with a leading model axis.
      tasks: test rows of each task, [R, L] with one L.
      batch: rows of all models that are in work at a time.

    Returns:
      float32 `loss_NT` in nats per response token, `accuracy_NT`, the share of scored
      examples that are reproduced exactly (nan: there are none), and `count_T`.
    """
    examples = max(one.scored_NM.shape[1] for one in tasks)
    size = -(-sum(map(len, tasks)) // batch) * batch
    bank = make_bank(tasks, size)
    scored_RM = np.zeros((size, examples), bool)
    task_R = np.full(size, -1)
    start = 0
    for number, one in enumerate(tasks):
        end = start + len(one)
        scored_RM[start:end, : one.scored_NM.shape[1]] = one.scored_NM
        task_R[start:end] = number
        start = end
    arrays = {**bank, "scored": scored_RM}
    batches = {k: x.reshape(-1, batch, *x.shape[1:]) for k, x in arrays.items()}
    sums = {
        name: np.moveaxis(np.asarray(x), 1, 0).reshape(-1, size, examples)
        for name, x in population.evaluate(params_N, batches).items()
    }
    member_TR = task_R == np.arange(len(tasks))[:, None]
    count_T = member_TR @ sums["count"][0].astype(np.float64).sum(axis=1)
    loss_NT = sums["loss_sum"].astype(np.float64).sum(axis=2) @ member_TR.T
    right_NR = ((sums["wrong"] == 0) & scored_RM).sum(axis=2)
    scored_T = member_TR @ scored_RM.sum(axis=1)
    accuracy_NT = right_NR @ member_TR.T / np.where(scored_T > 0, scored_T, np.nan)
    return dict(
        loss_NT=(loss_NT / count_T).astype(np.float32),
        accuracy_NT=accuracy_NT.astype(np.float32),
        count_T=count_T.astype(np.float32),
    )


def train_population(
    population: Population,
    base: Any,
    bank: dict[str, np.ndarray],
    plan: Plan,
    training: Training,
    evaluate: Callable[[Any], Results],
    state_path: str | os.PathLike | None = None,
    devices: Sequence[Any] | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> Trained:
    """Trains all models, from where an interrupted call with the same input stopped.

    Args:
      base: parameters that every model starts from.
      bank: see `make_bank`.
      plan: see `make_plan`.
      evaluate: called with all parameters at every stop and at the end.
      state_path: the state is kept there (.npz) between chunks; None: nowhere.
      devices: that share the models; None: all there are.
      advance: called with the number of steps that were taken.

    Raises:
      ValueError: `state_path` is the state of something else.
    """
    num_models = plan.row_TNB.shape[1]
    place, replicated = _shardings(devices)
    padded = -(-num_models // place.mesh.size) * place.mesh.size
    row_TNB, scale_TNB = (_pad_models(x, padded) for x in plan)
    rate_T = training.learning_rates()
    state, step, results = _start(base, training, padded), 0, {}
    key = state_key(base, bank, plan, training)
    if state_path is not None and Path(state_path).is_file():
        step, state, results = load_state(Path(state_path), key, state)
    advance(step)
    state = jax.device_put(state, place)
    bank_R = jax.device_put(bank, replicated)
    while step < training.steps:
        part = slice(step, step + training.chunk)
        now = [jax.device_put(x[part], _second(place)) for x in (row_TNB, scale_TNB)]
        state = population.chunk(state, bank_R, *now, rate_T[part])
        step += training.chunk
        if step in training.stops or step == training.steps:
            results[step] = evaluate(_first(state[0], num_models))
        if state_path is not None:
            save_state(Path(state_path), key, step, state, results)
        advance(training.chunk)
    return Trained(_first(state[0], num_models), results)


def _start(base: Any, training: Training, num_models: int) -> tuple[Any, Any]:
    optimizer = _optimizer(training)
    params = jax.tree.map(lambda x: jnp.repeat(x[None], num_models, axis=0), base)
    return params, jax.vmap(optimizer.init)(split(params)[0])


def _shardings(devices: Sequence[Any] | None) -> tuple[Any, Any]:
    mesh = Mesh(np.array(jax.devices() if devices is None else devices), ("models",))
    spec = PartitionSpec("models")
    return NamedSharding(mesh, spec), NamedSharding(mesh, PartitionSpec())


def _second(sharding: NamedSharding) -> NamedSharding:
    return NamedSharding(sharding.mesh, PartitionSpec(None, "models"))


def _pad_models(x_TN: np.ndarray, num_models: int) -> np.ndarray:
    """Repeats the last model until every device has as many."""
    missing = num_models - x_TN.shape[1]
    return np.pad(x_TN, ((0, 0), (0, missing), (0, 0)), mode="edge")


def _first(params_N: Any, num_models: int) -> Any:
    return jax.tree.map(lambda x: x[:num_models], params_N)
