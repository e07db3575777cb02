"""A LoRA step of SmolLM2-135M on CPU against transformers + peft.

    pip install -e ".[dev,peers]"
    python -m benchmarks.vs_transformers --out benchmarks/results/vs_transformers.md

Both sides train the same adapters on all linear layers of the same weights, float32, on
the same rows: the first batch of configs/smollm2_cpu.py, several short examples packed
into each row, the loss on their replies alone. Before anything is timed, losses and
gradients of the adapters are compared.

Ours is the whole step of the trainer (one gradient per ability, conflicts resolved,
AdamW) with two engines, and a plain step (one gradient of all rows). Theirs is a plain
step: with the logits of all positions, as a Trainer computes them, and with logits only
where there is loss, which needs code of one's own. The sides take turns in one process;
use an idle machine (benchmarks/vs_torchjd.py says why).
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
import torch

from benchmarks import transformers_sides as sides
from benchmarks.turns import CLOCKS, markdown, ratios, take_turns
from configs import smollm2_cpu
from dcft_jax.training.run import Run, open_run

TRAINER = "transformers + peft"
SELECTED = "transformers + peft, logits where there is loss"


def make_run(arguments: argparse.Namespace, folder: Path) -> Run:
    config = smollm2_cpu.get_config()
    if arguments.remat:
        config.model.remat = arguments.remat
    config.data.update(num_slots=arguments.rows, seq_len=arguments.length)
    return open_run(config, folder / "run")


def make_sides(run: Run, engines: list[str], folder: Path) -> tuple[dict, dict, list]:
    """Name -> step; the rows; and the row of the table of checks."""
    state, batch = sides.first_batch(run)
    rows = sides.rows_of(run, batch)
    theirs = sides.load_theirs(run, state.params, folder)
    loss, their_loss, distance = sides.check_same(
        run, state.params, rows, theirs, folder
    )
    rate, torch_rows = run.config.optimizer.learning_rate, sides.torch_rows(rows)
    steps = {
        f"DCFT-JAX, `{engine}`": sides.our_step(run, engine, state.params, batch)
        for engine in engines
    }
    steps["DCFT-JAX, plain"] = sides.plain_step(run, state.params, rows)
    steps[TRAINER] = sides.torch_step(theirs, sides.all_logits_loss, torch_rows, rate)
    steps[SELECTED] = sides.torch_step(
        theirs, sides.response_logits_loss, torch_rows, rate
    )
    return steps, rows, [f"{loss:.6f}", f"{their_loss:.6f}", f"{distance:.0e}"]


def report(arguments: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        run = make_run(arguments, folder)
        stack.enter_context(jax.set_mesh(run.mesh))
        steps, rows, checks = make_sides(run, arguments.engines, folder)
        seconds = take_turns(steps, arguments.rounds, arguments.clock)
    tokens = int((rows["segments"] > 0).sum())
    responses = int(rows["loss_mask"].sum())
    table = [
        [
            side,
            f"{tokens / statistics.median(times):.0f}",
            *(ratios(seconds[theirs], times) for theirs in (TRAINER, SELECTED)),
        ]
        for side, times in seconds.items()
    ]
    versions = ", ".join(f"{x} {version(x)}" for x in ("jax", "torch", "transformers"))
    header = ["side", "tokens/s", "faster than transformers + peft"]
    header += ["faster than it with logits where there is loss"]
    return "\n".join(
        [
            "# A LoRA step of SmolLM2-135M against transformers + peft\n",
            f"`python -m benchmarks.vs_transformers {' '.join(sys.argv[1:])}`\n",
            f"{versions}, peft {version('peft')}; CPU cores: {arguments.cores}; "
            f"{arguments.clock} time; {arguments.rows} rows of {arguments.length} "
            f"tokens ({tokens} tokens of examples, {responses} of them in replies); "
            f"rank {run.config.lora.rank} on all linear layers; remat "
            f"`{run.config.model.remat}`; {arguments.rounds} rounds. Ratios are "
            "medians (lowest to highest) of those of one round.\n",
            markdown(header, table),
            "## Is it the same work?\n",
            "Mean loss of the reply tokens, and how far the gradients of all adapters "
            "are apart, as a share of their norm.\n",
            markdown(["DCFT-JAX", "transformers + peft", "gradients"], [checks]),
        ]
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=6, help="of one step")
    parser.add_argument("--length", type=int, default=256, help="tokens per row")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--remat", help="config.model.remat of ours")
    parser.add_argument("--engines", nargs="+", default=["materialize", "lagged"])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--cores", type=int, default=cores, help="for both sides")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path, help="file for the tables")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    # Before the first computation: XLA counts the cores it may use when it starts.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    torch.set_num_threads(arguments.cores)
    text = report(arguments)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
