"""Next-token prediction on packed rows: pure functions, and a loop that resumes."""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from dcft_jax import sharding
from dcft_jax.models import ModelConfig, Params, apply, init, token_nll
from dcft_jax.reporting.pace import Pace, duration
from dcft_jax.training.checkpoint import is_due, load, open_checkpoints, save
from experiments.tiny_rows import Corpus

HISTORY = "history.json"

# Rows are split over devices, parameters are whole on each.
RULES = sharding.Rules(
    tuple((name, "data" if name == "batch" else None) for name in sharding.LOGICAL_AXES)
)


class State(NamedTuple):
    step: jax.Array
    params: Params
    optimizer: optax.OptState
    loss_sum: jax.Array  # of the steps since the last evaluation


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run does; equal runs on equal corpora give equal parameters.

    Attributes:
        rows_per_step: B; the devices must divide it.
        num_steps: in all, over however many calls.
    """

    model: ModelConfig
    optimizer: optax.GradientTransformation
    rows_per_step: int
    num_steps: int
    eval_every: int
    save_every: int
    log_every: int
    seed: int


def init_state(run: Run) -> State:
    params = init(run.model, jax.random.key(run.seed))
    zero = jnp.zeros((), jnp.int32), jnp.zeros(())
    return State(zero[0], params, run.optimizer.init(params), zero[1])


def row_nll(
    model: ModelConfig, bos_id: int, pad_id: int, params: Params, rows_BL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of the negative log-likelihoods, and the number of predicted tokens.

    Documents do not see each other. Their first token and padding are not predicted.

    Args:
        rows_BL: int32 [B, L + 1].
    """
    inputs_BL, targets_BL = rows_BL[:, :-1], rows_BL[:, 1:]
    segments_BL = 1 + jnp.cumsum(inputs_BL == bos_id, axis=1)
    counts_BL = (targets_BL != bos_id) & (targets_BL != pad_id)
    nll_BL = token_nll(apply(model, params, inputs_BL, segments_BL), targets_BL)
    return jnp.sum(jnp.where(counts_BL, nll_BL, 0.0)), jnp.sum(counts_BL)


def train_step(run: Run, nll: Callable, state: State, rows_BL: jax.Array):
    """`(state, rows) -> (state, mean loss)`."""

    def loss(params: Params) -> jax.Array:
        total, count = nll(params, rows_BL)
        return total / count

    value, gradient = jax.value_and_grad(loss)(state.params)
    update, optimizer = run.optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, update)
    return State(state.step + 1, params, optimizer, state.loss_sum + value), value


def batch_at(step: int, num_rows: int, rows_per_step: int, seed: int) -> np.ndarray:
    """Indices of the rows of a step: every epoch is a permutation of its own."""
    at_B = np.arange(step * rows_per_step, (step + 1) * rows_per_step)
    epoch_B, place_B = np.divmod(at_B, num_rows)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(num_rows)
        for epoch in np.unique(epoch_B)
    }
    return np.array([orders[e][p] for e, p in zip(epoch_B, place_B, strict=True)])


def bits_per_byte(
    evaluate: Callable, corpus: Corpus, params: Params, rows_per_step: int
) -> dict[str, float]:
    """Held-out loss of each source: bits of all predicted tokens per byte of text.

    In the chat layout the bits count those of the tokens around the text.
    """
    found = {}
    for report in corpus.reports:
        rows_NL = corpus.held_out[report.name]
        short = -len(rows_NL) % rows_per_step
        rows_NL = np.pad(
            rows_NL, ((0, short), (0, 0)), constant_values=corpus.tokenizer.pad_id
        )
        parts = rows_NL.reshape(-1, rows_per_step, rows_NL.shape[1])
        nats = sum(float(evaluate(params, place_rows(part))[0]) for part in parts)
        if report.held_out_bytes:
            found[report.name] = nats / np.log(2.0) / report.held_out_bytes
    return found


def place_rows(rows_BL: np.ndarray) -> jax.Array:
    """On the mesh of `jax.set_mesh`, split over devices."""
    spec = sharding.logical_to_spec(RULES, ("batch", None))
    rows_BL = np.asarray(rows_BL, np.int32)
    return jax.device_put(rows_BL, NamedSharding(jax.sharding.get_mesh(), spec))


def make_mesh() -> jax.sharding.Mesh:
    return sharding.make_mesh(dict(ability=1, data=-1, model=1))


def compile_run(run: Run, corpus: Corpus) -> tuple[Callable, Callable]:
    """`step(state, rows) -> (state, loss)` and `evaluate(params, rows) -> sums`."""
    tokenizer = corpus.tokenizer
    nll = partial(row_nll, run.model, tokenizer.bos_id, tokenizer.pad_id)
    step = jax.jit(partial(train_step, run, nll), donate_argnums=0)
    return step, jax.jit(nll)


def rows_of(run: Run, corpus: Corpus, step: int) -> jax.Array:
    rows_NL = corpus.train_NL
    index_B = batch_at(step, len(rows_NL), run.rows_per_step, run.seed)
    return place_rows(rows_NL[index_B])


def tokens_per_second(run: Run, corpus: Corpus, num_steps: int) -> float:
    """Speed of training, measured on a state that is thrown away."""
    step_fn, _ = compile_run(run, corpus)
    state, seconds = init_state(run), []
    for step in range(num_steps + 1):
        started = time.perf_counter()
        state, loss = step_fn(state, rows_of(run, corpus, step))
        jax.block_until_ready(loss)
        seconds.append(time.perf_counter() - started)
    length = corpus.train_NL.shape[1] - 1
    return run.rows_per_step * length / float(np.median(seconds[1:]))


def train(
    run: Run, corpus: Corpus, workdir: Path, stop_at: int | None = None
) -> tuple[Params, list[dict[str, Any]]]:
    """Trains from the latest checkpoint of `workdir`, or from the start.

    Args:
        stop_at: end this call early, as if it were interrupted behind a checkpoint.

    Returns:
        the parameters, and the measurements so far (see `_measure`).
    """
    step_fn, evaluate = compile_run(run, corpus)
    last = run.num_steps if stop_at is None else stop_at
    with open_checkpoints(workdir, run.save_every, keep=1) as checkpoints:
        state, history = _start(run, checkpoints)
        first = int(state.step)
        pace = Pace(first)
        for step in range(first, last + 1):
            # What is saved at a step was measured before.
            measured = bool(history) and history[-1]["step"] == step
            if not measured and (step % run.eval_every == 0 or step == run.num_steps):
                started = time.perf_counter()
                history.append(_measure(run, corpus, evaluate, state, history))
                (workdir / HISTORY).write_text(json.dumps(history, indent=1))
                state = state._replace(loss_sum=jnp.zeros_like(state.loss_sum))
                pace.pause(time.perf_counter() - started, recurs=True)
            if is_due(checkpoints, step, at_end=step == last):
                save(checkpoints, step, state, {"history": history})
            if step == last:
                break
            state, loss = step_fn(state, rows_of(run, corpus, step))
            if (step + 1) % run.log_every == 0:
                value = float(loss)  # waits for the step
                pace.advance(step + 1, time.perf_counter())
                _report(step + 1, run.num_steps, value, pace)
    return state.params, history


def _start(run: Run, checkpoints) -> tuple[State, list[dict[str, Any]]]:
    if checkpoints.latest is None:
        return init_state(run), []
    abstract = jax.eval_shape(partial(init_state, run))
    abstract = sharding.concretize(abstract, jax.sharding.get_mesh())
    metadata = checkpoints.metadata(checkpoints.latest).custom_metadata
    return load(checkpoints, checkpoints.latest.step, abstract), metadata["history"]


def _measure(
    run: Run, corpus: Corpus, evaluate: Callable, state: State, history: list
) -> dict[str, Any]:
    """Train loss since the last measurement, and held-out losses, at this step."""
    step = int(state.step)
    steps = step - history[-1]["step"] if history else 0
    found = bits_per_byte(evaluate, corpus, state.params, run.rows_per_step)
    mean = np.mean(list(found.values()))
    print(f"step {step}: {mean:.3f} bits per byte, mean of the sources", flush=True)
    return dict(
        step=step,
        tokens=step * run.rows_per_step * (corpus.train_NL.shape[1] - 1),
        train_loss=float(state.loss_sum) / steps if steps else None,
        bits_per_byte=found,
    )


def _report(step: int, num_steps: int, loss: float, pace: Pace) -> None:
    left = pace.seconds_left(num_steps)
    left = "" if left is None else f", {duration(left)} left"
    print(f"step {step}/{num_steps}: train loss {loss:.3f}{left}", flush=True)
