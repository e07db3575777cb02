"""What a mixture costs: evaluation, extra passes and update, per rule.

    python -m benchmarks.mixture_cost --out benchmarks/results/mixture_cost.md

The model, data and cadence of configs/from_scratch.py and the trainer's own pieces, in
one process. A round trains some steps, evaluates the mix-val rows that an update reads
(all of them at both ends of a run, which is charged), and then lets
every rule make its passes and its update from what was measured; the first round
compiles and is not counted. Cells are medians over rounds of shares of the time that
the steps of the whole run take in the same round.

`static` trains the model that all rules look at. What evaluation measures is the same
for all rules, so it is timed once a round; how often it happens is the rule's own
affair (`aioli`). On a busy machine pin one core and use `--clock cpu`.

Not in the table: `replay`, which needs a finished run as long as this one and makes no
pass; its update is a look-up. And the checkpoints of `msft`, one at every update.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from configs import from_scratch
from dcft_jax import config as config_lib
from dcft_jax.mixture import RULES
from dcft_jax.sharding import match_sharding, set_cpu_devices
from dcft_jax.training.held_out import EvalSet, place_split, rotate
from dcft_jax.training.log import mixture_metrics
from dcft_jax.training.loop import evaluate_split, next_slots, read_mixture, train
from dcft_jax.training.measured import Measured, measure
from dcft_jax.training.passes import Pass, make_passes, run_passes
from dcft_jax.training.program import build_program
from dcft_jax.training.run import Run, jit_init, open_run, tier_sizes
from dcft_jax.training.state import MixtureState, TrainState

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
OURS = "mirror_descent"


def _options(**options: Any) -> dict[str, Any]:
    return {"options": {OURS: options}}


# Rows beyond the rules with their defaults: name -> (rule, fields of `mixture`).
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{OURS}, guard": (OURS, _options(guard=2.0, warmup_updates=8)),
    f"{OURS}, fitted references": (OURS, {"references": "fitted"}),
    f"{OURS}, gradient_alignment": (
        OURS,
        _options(signals={"gradient_alignment": 1.0}),
    ),
}


@dataclasses.dataclass(frozen=True)
class Side:
    """One row of the table; its program shares data and model with all others."""

    name: str
    run: Run
    passes: list[Pass]


@dataclasses.dataclass(frozen=True)
class Update:
    mixture: MixtureState
    extra: dict[str, Any]
    passes_s: float
    update_s: float
    extra_tokens: float


@dataclasses.dataclass(frozen=True)
class Round:
    """Seconds."""

    step_s: float
    evaluation_s: float
    passes_s: dict[str, float]
    update_s: dict[str, float]
    extra_tokens: dict[str, float]


def copy(config: ConfigDict) -> ConfigDict:
    return config_lib.from_plain(config_lib.to_plain(config))


def train_reference(config: ConfigDict, folder: Path) -> str:
    """A finished run of the same model and tokenizer, as short as can be."""
    config = copy(config)
    config.run.update(num_steps=2, eval_every=2, save_every=2)
    config.optimizer.warmup_steps = 1
    config.logging.tensorboard = False
    train(open_run(config, folder, Console(quiet=True)))
    return str(folder)


def make_sides(
    base: Run, mix_val: list[EvalSet], reference: str, rules: list[str]
) -> list[Side]:
    rows = {name: (name, {}) for name in RULES if name != "replay"} | VARIANTS
    sides = []
    for name, (rule, mixture) in rows.items():
        if rule not in {"static", *rules}:
            continue
        config = copy(base.config)
        config.mixture.update(rule=rule, reference_run=reference, **mixture)
        config_lib.validate(config)
        program = build_program(config, base.program.model, *tier_sizes(base.data))
        run = dataclasses.replace(base, config=config, program=program)
        sides.append(Side(name, run, make_passes(run, mix_val)))
    return sides


def train_steps(
    run: Run, state: TrainState, number: int, clock: Clock
) -> tuple[TrainState, float]:
    """Steps as the loop takes them, metrics read one step late; seconds per step."""
    started, host, pending = clock(), read_mixture(state), None
    for _ in range(number):
        batch, _, host = next_slots(run, host)
        state, metrics = run.program.train_step(state, {}, batch)
        jax.device_get(pending)
        pending = metrics
    jax.block_until_ready(state)
    return state, (clock() - started) / number


def evaluate(
    run: Run, state: TrainState, mix_val: list[EvalSet], clock: Clock
) -> tuple[Measured, float]:
    started, mixture = clock(), state.mixture
    scores, _ = evaluate_split(run, state.params, mix_val, "mix_val")
    composition = run.program.composition
    measured = measure(
        scores,
        np.asarray(mixture.val_loss_sum_KN),
        np.asarray(mixture.best_loss_sum_KN),
        composition.tier_KN,
        composition.size_KT.shape[1],
    )
    return measured, clock() - started


def update(
    side: Side,
    state: TrainState,
    rule_state: Any,
    measured: Measured,
    step: int,
    clock: Clock,
) -> Update:
    """The rule's passes and update, and what the loop reads of it on the host."""
    mixture = dataclasses.replace(state.mixture, rule=rule_state)
    state = dataclasses.replace(state, mixture=mixture)
    started = clock()
    extra, costs = run_passes(side.passes, state, step)
    passed = clock()
    program = side.run.program
    new = program.update_mixture(mixture, measured, extra, jnp.int32(step))
    new = match_sharding(new, mixture)
    mixture_metrics(program.composition, side.run.abilities, measured, new)
    read_mixture(dataclasses.replace(state, mixture=new))
    jax.block_until_ready(new)
    return Update(
        new, extra, passed - started, clock() - passed, costs["run/extra_tokens"]
    )


def count_updates(side: Side, first: Update, measured: Measured) -> int:
    """Of a whole run: at step 0, whenever the rule is due, and at the end."""
    # With progress: sweeps do not go on without.
    progress_K = np.full_like(measured.progress_K, 0.01)
    measured = dataclasses.replace(measured, progress_K=progress_K)
    prior_K = jnp.asarray(side.run.program.composition.prior_K)
    rule_state = side.run.program.composition.rule.init(prior_K)
    mixture = dataclasses.replace(first.mixture, rule=rule_state)
    step, number = 0, 1
    while step < side.run.num_steps:
        mixture = side.run.program.update_mixture(
            mixture, measured, first.extra, jnp.int32(step)
        )
        step, number = int(mixture.next_update), number + 1
    return number


def measure_rounds(
    sides: list[Side], mix_val: list[EvalSet], rounds: int, steps: int, clock: Clock
) -> tuple[list[Round], dict[str, int]]:
    """The counted rounds, and how many updates each side makes in a run."""
    static = next(side for side in sides if side.name == "static")
    state, found, updates = jit_init(static.run), [], {}
    prior_K = jnp.asarray(static.run.program.composition.prior_K)
    rules = {s.name: s.run.program.composition.rule.init(prior_K) for s in sides}
    for number in range(rounds + 1):
        state, step_s = train_steps(static.run, state, steps, clock)
        rules["static"] = state.mixture.rule  # the one it had was donated
        blocks = static.run.config.mixture.mix_val_blocks
        due = rotate(mix_val, number, blocks) if number else mix_val
        measured, evaluation_s = evaluate(static.run, state, due, clock)
        evaluation_s /= sum(map(len, due))
        step = number * static.run.config.run.eval_every
        done: dict[str, Update] = {}
        for side in sides:
            rule_state = rules[side.name]
            done[side.name] = update(side, state, rule_state, measured, step, clock)
            rules[side.name] = done[side.name].mixture.rule
            if not number:
                updates[side.name] = count_updates(side, done[side.name], measured)
                print(side.name, updates[side.name], "updates", flush=True)
        state = dataclasses.replace(state, mixture=done["static"].mixture)
        found.append(
            Round(
                step_s,
                evaluation_s,  # of one batch
                {name: one.passes_s for name, one in done.items()},
                {name: one.update_s for name, one in done.items()},
                {name: one.extra_tokens for name, one in done.items()},
            )
        )
    return found[1:], updates


def batches_per_update(run: Run, mix_val: list[EvalSet], updates: int) -> float:
    """Mean over a run: all mix-val rows at both ends, the blocks due in between."""
    blocks = run.config.mixture.mix_val_blocks
    counts = [
        sum(map(len, rotate(mix_val, number, blocks)))
        for number in range(1, updates - 1)
    ]
    return float(np.mean(counts + 2 * [sum(map(len, mix_val))]))


def table(
    run: Run, rounds: list[Round], updates: dict[str, int], mix_val: list[EvalSet]
) -> list[str]:
    tokens = run.num_steps * run.rows_per_step * run.config.data.seq_len
    lines = [
        "| rule | updates | evaluation % | passes % | update % | total % (range) "
        "| extra tokens % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, number in updates.items():
        batches = batches_per_update(run, mix_val, number)
        parts = np.array(
            [
                (r.evaluation_s * batches, r.passes_s[name], r.update_s[name])
                for r in rounds
            ]
        )
        train_s = run.num_steps * np.array([r.step_s for r in rounds])
        share_RP = 100 * number * parts / train_s[:, None]
        total_R = share_RP.sum(axis=1)
        extra_tokens = rounds[0].extra_tokens[name]  # the same in all of them
        cells = [
            f"`{name}`",
            str(number),
            *(f"{value:.2f}" for value in np.median(share_RP, axis=0)),
            f"{np.median(total_R):.2f} ({total_R.min():.2f} to {total_R.max():.2f})",
            f"{100 * number * extra_tokens / tokens:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def describe(run: Run, rounds: list[Round], num_batches: int, clock: str) -> str:
    step_s = statistics.median(r.step_s for r in rounds)
    ratio = statistics.median(num_batches * r.evaluation_s / r.step_s for r in rounds)
    rows = sum(len(run.data.rows[name]["mix_val"]) for name in run.abilities)
    filled = 100 * rows / (num_batches * run.rows_per_step)
    cores = len(os.sched_getaffinity(0))
    return (
        f"jax {jax.__version__}, devices: {len(jax.devices())}, CPU cores: {cores}, "
        f"rounds: {len(rounds)}, {clock} time. A step takes {1000 * step_s:.0f} ms, an "
        f"evaluation of all rows ({num_batches} forward passes of a step's batch, "
        f"{filled:.0f} % full) the time of {ratio:.1f} steps; a run of {run.num_steps} "
        f"steps evaluates every {run.config.run.eval_every}, two of "
        f"{run.config.mixture.mix_val_blocks} blocks of the rows. "
        "All shares are of the time, or the tokens, of the training steps."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="in each round")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--rules", nargs="+", default=[*RULES], choices=RULES)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = from_scratch.get_config()
    # Devices that share a core can wait in a collective for each other, for ever.
    cores = len(os.sched_getaffinity(0))
    config.mesh.cpu_devices = min(config.mesh.cpu_devices, cores)
    set_cpu_devices(config.mesh.cpu_devices)
    with tempfile.TemporaryDirectory() as folder:
        reference = train_reference(config, Path(folder) / "reference")
        base = open_run(config, Path(folder) / "run", Console(quiet=True))
        with jax.set_mesh(base.mesh):
            mix_val = place_split(base, "mix_val")
            sides = make_sides(base, mix_val, reference, arguments.rules)
            rounds, updates = measure_rounds(
                sides,
                mix_val,
                arguments.rounds,
                arguments.steps,
                CLOCKS[arguments.clock],
            )
    text = [
        " ".join(["`python -m benchmarks.mixture_cost", *sys.argv[1:]]) + "`",
        "",
        describe(base, rounds, sum(map(len, mix_val)), arguments.clock),
        "",
        *table(base, rounds, updates, mix_val),
    ]
    print("\n".join(text))
    if arguments.out:
        arguments.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
