"""Plans of models from 1B to 70B on slices from 8 to 512 chips: a table and a picture.

    python -m experiments.scale_plans --rows experiments/results/scale_plans.json

Every plan is `python -m dcft_jax.plan --json` in a process of its own: it compiles, and
runs nothing. It takes minutes each, and needs libtpu (pip install dcft-jax[tpu]). Plans
that `--rows` holds are not made again; `--only NAME` makes one.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dcft_jax.planning.topology import parse_topology
from dcft_jax.training.workdir import write_json
from experiments.scale_table import scale_figure, scale_tables
from experiments.trap_figure import write_svg

SLOTS, LENGTH = 8, 2048
# Rows of a slot for each chip that shares them: 4,096 tokens a chip, and 1,024 of 70B,
# of which a chip could not keep more layer inputs.
ROWS, ROWS_70B = 1.0, 0.25


class Case(NamedTuple):
    """A plan: a config, fields of it to change, and what it is compiled for."""

    config: str  # of configs/
    topology: str
    fields: Mapping[str, Any] = {}


def grid_case(model: str, topology: str, model_parts: int, rows: float = ROWS) -> Case:
    """Full fine-tuning on v4, abilities on four parts."""
    data = math.prod(parse_topology(topology).shape) // (4 * model_parts)
    fields = {
        "pretrained.settings": f"configs/settings/{model}.json",
        "data.num_slots": SLOTS,
        "data.seq_len": LENGTH,
        "data.rows_per_slot": int(data * model_parts * rows),
        "mesh.ability": 4,
        "mesh.data": data,
        "mesh.model": model_parts,
    }
    return Case("tpu_v4", topology, fields)


# The configs of this repository, on the slices that they are written for.
CONFIGS = {
    "tpu_v4": Case("tpu_v4", "v4:4x4x4"),
    "tpu_v4_multislice": Case("tpu_v4_multislice", "2*v4:4x4x4"),
    "llama3_8b_32k_v4": Case("llama3_8b_32k_v4", "v4:4x4x4"),
    "llama3_70b_v5p": Case("llama3_70b_v5p", "v5p:8x8x4"),
    "llama3_8b_v4": Case("llama3_8b_v4", "v4:2x2x4"),
    "qwen3_8b_v5e": Case("qwen3_8b_v5e", "v5e:2x4"),
    "gemma3_4b_v6e": Case("gemma3_4b_v6e", "v6e:2x4"),
}
# Llama 3 of one size after the other, by number of chips.
GRID = {
    "1B on 8": grid_case("llama3_2_1b", "v4:2x2x2", 1),
    "1B on 64": grid_case("llama3_2_1b", "v4:4x4x4", 1),
    "1B on 512": grid_case("llama3_2_1b", "v4:8x8x8", 1),
    "3B on 16": grid_case("llama3_2_3b", "v4:2x2x4", 2),
    "8B on 64": grid_case("llama3_1_8b", "v4:4x4x4", 4),
    "8B on 512": grid_case("llama3_1_8b", "v4:8x8x8", 4),
    "70B on 256": grid_case("llama3_1_70b", "v4:4x8x8", 8, ROWS_70B),
    "70B on 512": grid_case("llama3_1_70b", "v4:8x8x8", 8, ROWS_70B),
}


def make_row(case: Case) -> dict[str, Any]:
    """The JSON of a plan.

    Raises:
      RuntimeError: with what the command said.
    """
    command = [sys.executable, "-m", "dcft_jax.plan", "--json"]
    command += ["--config", f"configs/{case.config}.py", "--topology", case.topology]
    command += [f"--config.{field}={value}" for field, value in case.fields.items()]
    before = _processor_seconds()
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stderr[-2000:]}")
    # Of the whole command: wall time would depend on what else this machine does.
    seconds = round(_processor_seconds() - before, 1)
    return json.loads(result.stdout) | {"processor_seconds": seconds}


def _processor_seconds() -> float:
    """Of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = Path("experiments/results")
    parser.add_argument("--rows", type=Path, default=results / "scale_plans.json")
    parser.add_argument("--only", nargs="*", choices=[*CONFIGS, *GRID], default=None)
    given = parser.parse_args(arguments)
    rows = json.loads(given.rows.read_text()) if given.rows.is_file() else {}
    wanted = given.only if given.only is not None else [*CONFIGS, *GRID]
    missing = [name for name in wanted if name not in rows]
    for number, name in enumerate(missing, 1):
        print(f"{number} of {len(missing)}: {name}", flush=True)
        rows[name] = make_row((CONFIGS | GRID)[name])
        write_json(given.rows, rows)
    configs = {name: rows[name] for name in CONFIGS if name in rows}
    grid = {name: rows[name] for name in GRID if name in rows}
    given.rows.with_suffix(".md").write_text(scale_tables(configs, grid))
    write_svg(scale_figure(grid), given.rows.with_suffix(".svg"))
    print(given.rows.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
