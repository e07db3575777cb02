"""Cases are of the size that their table says, and the table is what was measured."""

import importlib
import json
import math
from pathlib import Path

import pytest

from dcft_jax import config as config_lib
from dcft_jax.planning.model import planned_model
from dcft_jax.planning.topology import parse_topology
from dcft_jax.sharding import abstract_mesh
from dcft_jax.training.run import check_batch
from experiments.scale_plans import CONFIGS, GRID, Case
from experiments.scale_table import gigabytes, scale_figure, scale_tables

RESULTS = Path("experiments/results")


def configured(case: Case):
    config = importlib.import_module(f"configs.{case.config}").get_config()
    config.update_from_flattened_dict(case.fields)
    return config


@pytest.mark.parametrize("name", [*CONFIGS, *GRID])
def test_cases_are_valid_on_their_slices(name: str):
    case = (CONFIGS | GRID)[name]
    config, slice_of = configured(case), parse_topology(case.topology)
    config_lib.validate(config)
    num_chips = math.prod(slice_of.shape) * slice_of.num_slices
    check_batch(config, abstract_mesh(config.mesh, num_chips))
    if name in GRID:
        size, chips = name.split(" on ")
        assert int(chips) == num_chips
        data = config.data
        tokens = data.num_slots * data.rows_per_slot * data.seq_len
        assert tokens == (1024 if size == "70B" else 4096) * num_chips
        model = planned_model(config)
        layers = {"1B": 16, "3B": 28, "8B": 32, "70B": 80}
        assert model.num_layers == layers[size]


def row(**changes) -> dict:
    made = {
        "topology": "v4:2x2x2",
        "num_chips": 8,
        "num_layers": 16,
        "mesh": {"slice": 1, "ability": 4, "data": 2, "model": 1},
        "parameters": 2_000_000_000,
        "trained_parameters": 2_000_000_000,
        "tokens_per_step": 32_768,
        "hbm_gib_per_chip": 12.34,
        "hbm_capacity_gib": 32,
        "fits": True,
        "flops_per_step": 5e15,
        "collective_bytes": {"all-gather": {"data": 2e9, "ability": 1e9}},
        "step_seconds_estimate": 0.5,
        "bound_by": "compute",
        "mfu_estimate": 0.625,
        "processor_seconds": 100.4,
    }
    return made | changes


def test_cells_of_a_plan():
    assert gigabytes(row()) == 3.0
    text = scale_tables({}, {"1B on 8": row()})
    cells = [cell.strip() for cell in text.splitlines()[-1].split("|")[1:-1]]
    assert cells == [
        *("1B on 8", "v4:2x2x2 (8)", "ability 4, data 2", "2.00 B", "32,768"),
        *("12.3 of 32", "5.00", "3.0", "0.50 s, compute", "62%", "100 s"),
    ]


def test_what_does_not_fit_says_so():
    refused = row(fits=False, step_seconds_estimate=None, bound_by=None)
    text = scale_tables({"big": refused | {"trained_parameters": 5_000_000}}, {})
    assert "12.3 of 32: **does not fit**" in text
    assert "`big.py`" in text and "2.00 B, 5 M trained" in text


def test_the_picture_has_every_size_in_every_panel():
    grid = {"1B on 8": row(), "1B on 16": row(num_chips=16), "3B on 8": row()}
    figure = scale_figure(grid)
    for axes in figure.axes:
        assert sorted(len(line.get_xdata()) for line in axes.lines) == [1, 2]


def test_the_tables_are_made_of_the_committed_rows():
    rows = json.loads((RESULTS / "scale_plans.json").read_text())
    configs = {name: rows[name] for name in CONFIGS if name in rows}
    grid = {name: rows[name] for name in GRID if name in rows}
    assert rows.keys() == configs.keys() | grid.keys()
    assert (RESULTS / "scale_plans.md").read_text() == scale_tables(configs, grid)
