"""Plans of whole configs on eight fake CPU devices."""

import dataclasses
import json
import re
from io import StringIO

import jax
import numpy as np
import pytest
from rich.console import Console

from dcft_jax.models import STACKED, LoRA
from dcft_jax.planning import Plan, as_json, make_plan, show_plan
from dcft_jax.planning.advice import advise
from dcft_jax.planning.arguments import (
    bytes_per_chip,
    make_arguments,
    number_of,
    total_bytes,
)
from dcft_jax.planning.chips import CHIPS, chip_of
from dcft_jax.planning.compiling import Compiled, Memory, compile_step
from dcft_jax.planning.model import planned_model
from dcft_jax.planning.roofline import roofline
from dcft_jax.planning.sizes import measure_sizes
from dcft_jax.planning.topology import Topology, parse_topology
from dcft_jax.planning.traffic import Collective
from dcft_jax.sharding import make_mesh
from dcft_jax.training.program import build_program, make_composition
from tests.planning.conftest import small_config

GIB = 2**30


def shown(plan: Plan) -> str:
    console = Console(file=StringIO(), width=100)
    show_plan(plan, console)
    return console.file.getvalue()


def on(plan: Plan, kind: str, temporary: int) -> Plan:
    """The plan as if for another chip, with so many bytes of temporaries."""
    memory = Memory(plan.train.memory.arguments, 0, temporary, 0)
    train = plan.train._replace(memory=memory)
    chip = CHIPS[kind]
    speed = roofline(chip, plan.mesh, train.flops, memory, train.collectives)
    return dataclasses.replace(plan, chip=chip, train=train, roofline=speed)


def test_no_data_and_an_unknown_device_are_said_not_invented(plan):
    found = json.loads(json.dumps(as_json(plan)))
    assert found["hbm_gib_per_chip"] > 0
    for name in ("hbm_capacity_gib", "fits", "step_seconds_estimate", "mfu_estimate"):
        assert found[name] is None
    assert found["epochs"] is None and "data/maths.jsonl" in found["epochs_unknown"]
    assert found["num_chips"] == 8 and found["tokens_per_step"] == 2 * 4 * 32
    assert found["compile_seconds"] > 0
    assert found["advice"] == []
    text = shown(plan)
    assert "unknown: abilities.maths.sources.rows" in text
    assert "the devices at hand: 8 x cpu" in text


def test_memory_of_a_chip_is_what_the_shardings_say(plan):
    found = as_json(plan)["hbm_gib_by_kind"]
    # Adam keeps two numbers for each parameter; the decoder lies over data and model.
    parameters = found["trained parameters"] * GIB
    assert found["optimizer"] * GIB == pytest.approx(2 * parameters, rel=1e-2)
    assert 4 * plan.num_params / 4 <= parameters < 1.1 * 4 * plan.num_params / 4
    assert found["batch"] * GIB == pytest.approx(4 * 2 * 32 * 13 / 4, rel=0.1)
    memory = plan.train.memory
    # The program does not ask for the few numbers that it only replaces.
    assert 0 <= sum(found.values()) * GIB - memory.total < 64
    assert as_json(plan)["hbm_gib_per_chip"] * GIB >= memory.total


def test_the_step_costs_little_more_than_plain_training_and_recomputation(plan):
    found = as_json(plan)
    # A forward pass of three is done again; what resolves conflicts adds a little.
    ratio = found["flops_per_step"] / found["plain_flops_per_step"]
    assert 1.1 < ratio < 4 / 3 + 0.1


def test_traffic_goes_over_the_axes_of_the_mesh(plan):
    moved = as_json(plan)["collective_bytes"]
    assert moved["all-gather"]["data"] > 0  # parameters, where they are used
    assert moved["all-reduce"]["model"] > 0  # activations
    layers = {c.runs for c in plan.train.collectives}
    assert plan.program.model.num_layers in layers
    assert all(c.certain for c in plan.train.collectives)


def test_what_does_not_fit_gets_advice_with_numbers(plan):
    small = on(plan, "v5e", temporary=20 * GIB)
    assert small.fits is False
    lines = "\n".join(advise(small))
    assert "config.conflict.engine" in lines
    assert "config.mesh.ability = 1 and config.mesh.data = 4" in lines
    assert 'config.model.param_dtype = "bfloat16"' in lines
    assert "config.model.remat" not in lines  # it is on already
    assert "It does not fit" in shown(small)
    assert on(plan, "v5e", temporary=GIB).fits is True
    assert advise(on(plan, "v5e", temporary=GIB)) == []


def test_a_state_too_large_for_the_slice_asks_for_chips(plan):
    tiny = dataclasses.replace(CHIPS["v5e"], hbm_gib=50_000 / GIB)
    small = dataclasses.replace(on(plan, "v5e", temporary=GIB), chip=tiny)
    state = total_bytes((plan.arguments.state, {}))
    assert f"that is {-(-state // 50_000)} chips" in "\n".join(advise(small))
    assert "more chips" not in "\n".join(advise(on(plan, "v5e", temporary=20 * GIB)))


def test_advice_tries_adapters_where_they_are_smaller(plan):
    model = dataclasses.replace(plan.program.model, width=512, hidden=1024)
    program = dataclasses.replace(plan.program, model=model)
    wide = on(dataclasses.replace(plan, program=program), "v5e", temporary=20 * GIB)
    (line,) = (line for line in advise(wide) if "config.lora.rank = 16" in line)
    then, now = re.findall(r"[\d.]+(?= GiB of state|$)", line)
    assert 4 * float(then) < 2 * float(now)  # of four numbers a parameter keeps one


REFUSALS = [
    # The second is what libtpu 0.0.42 wrote for a v5e; the first, of all memory, is
    # how others of its checks word it.
    ("Ran out of memory. Used 45.50G of 30.75G hbm. Exceeded by 14.75G.", 45.5, False),
    (
        "Ran out of memory on HBM, the total memory required for HLO temporaries "
        "(342.35G) exceeds available HBM (15.75G).",
        342.35,
        True,
    ),
]


@pytest.mark.parametrize(("message", "gib", "temporary"), REFUSALS)
def test_a_refused_step_is_reported_with_what_it_would_have_needed(
    plan, monkeypatch, message, gib, temporary
):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}\nA dump.")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    refused = compile_step(
        plan.program.train_step,
        plan.arguments[:3],
        plan.mesh,
        Console(quiet=True),
        "the train step",
    )
    assert refused.flops == plan.train.flops
    late = dataclasses.replace(plan, train=refused, chip=CHIPS["v4"])
    found = as_json(late)
    arguments = plan.train.memory.arguments / GIB if temporary else 0.0
    assert found["hbm_gib_per_chip"] == pytest.approx(gib + arguments, abs=1e-6)
    assert found["fits"] is False
    assert found["refusal"] == f"RESOURCE_EXHAUSTED: {message}"
    assert "The compiler refused it" in shown(late)


def test_another_failure_of_the_compiler_is_not_hidden(plan, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        compile_step(
            plan.program.eval_step,
            (plan.arguments.params, plan.arguments.eval_batch),
            plan.mesh,
            Console(quiet=True),
            "the eval step",
        )


def test_roofline_of_known_numbers(plan):
    moved = [
        Collective("all-gather", 4 * 10**9, 2, ((0, 1, 2, 3), (4, 5, 6, 7)), True),
        Collective("reduce-scatter", 10**9, 1, ((0, 1, 2, 3), (4, 5, 6, 7)), True),
        Collective("all-reduce", 10**9, 1, (), True),
    ]
    memory = Memory(arguments=10**9, outputs=10**8, temporary=10**9, code=0)
    found = roofline(CHIPS["v5e"], plan.mesh, 8 * 197 * 10**12, memory, moved)
    assert found.compute == pytest.approx(1.0)
    assert found.hbm == pytest.approx(3.1 / 819)
    assert found.ici == pytest.approx((2 * 3 + 3 + 2 * 7 / 8) / 100)
    assert (found.dcn, found.bound_by, found.estimate) == (0, "compute", found.compute)


def test_peaks_are_found_by_the_names_of_jax():
    assert chip_of("TPU v5 lite") is CHIPS["v5e"]
    assert chip_of("cpu") is None


def test_epochs_follow_the_mixture(plan):
    sizes = plan.sizes._replace(size_KT=np.array([[60, 20], [40, 0]]), unknown="")
    composition = make_composition(plan.config, sizes.size_KT, sizes.tier_KN)
    program = dataclasses.replace(plan.program, composition=composition)
    known = dataclasses.replace(plan, sizes=sizes, program=program)
    # Half of the rows for each ability; tiers by their sizes.
    half = plan.config.run.num_steps * 2 * 4 / 2
    found = as_json(known)["epochs"]
    assert found == {
        "maths": pytest.approx([half / 80, half / 80], rel=1e-4),
        "code": pytest.approx([half / 40], rel=1e-4),
    }
    assert "maths:" in shown(known) and "(by tier)" in shown(known)


def test_sizes_are_those_of_the_data(tiny_config):
    sizes = measure_sizes(tiny_config, Console(quiet=True))
    assert sizes.unknown == ""
    assert sizes.size_KT.shape == (3, 1) and (sizes.size_KT > 1).all()
    assert sizes.tier_KN.shape == (3, 24)
    assert sizes.vocab_size == 320 and 0 < (sizes.max_predicted or 0) <= 64


def test_a_model_elsewhere_is_planned_from_its_settings():
    config = small_config()
    config.pretrained.path = "/nowhere/llama"
    with pytest.raises(FileNotFoundError, match=r"--config.pretrained.settings=FILE"):
        make_plan(config)
    config.pretrained.settings = "none.json"
    with pytest.raises(ValueError, match=r"settings = 'none.json': is not a file"):
        make_plan(config)
    config.pretrained.update(path="", settings="configs/settings/llama3_1_8b.json")
    with pytest.raises(ValueError, match=r"is for a model of pretrained\.path"):
        make_plan(config)


def test_settings_of_a_model_that_is_not_here():
    config = small_config()
    config.pretrained.path = "/nowhere/llama"
    config.pretrained.settings = "configs/settings/llama3_1_8b.json"
    config.lora.rank = 4
    model = planned_model(config)
    assert (model.num_layers, model.width, model.vocab_size) == (32, 4096, 128_256)
    mesh = make_mesh(config.mesh)
    sizes = measure_sizes(config, Console(quiet=True))
    assert "beside the weights" in sizes.unknown
    program = build_program(config, model, sizes.size_KT, sizes.tier_KN)
    arguments = make_arguments(config, program, mesh, sizes.examples_per_row)
    assert number_of(arguments.frozen) == 8_030_261_248  # as its model card says: 8.03B
    assert number_of(arguments.state.params) < 12_000_000
    # Over data and model; norms and what embeds, whole on some of them.
    assert bytes_per_chip(arguments.frozen) < 1.01 * total_bytes(arguments.frozen) / 4


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8), ("nf4", 4)])
def test_kernels_of_fewer_bits(plan, kind: str, bits: int):
    config = small_config()
    config.lora.rank, config.pretrained.quantize = 2, kind
    fields = dict(width=256, hidden=512, param_dtype="bfloat16")
    lora = LoRA.from_config(config.lora)
    model = dataclasses.replace(plan.program.model, lora=lora, **fields)
    sizes = plan.sizes
    program = build_program(config, model, sizes.size_KT, sizes.tier_KN)
    frozen = make_arguments(config, program, plan.mesh, 1).frozen[STACKED]
    config.pretrained.quantize = "none"
    whole = make_arguments(config, program, plan.mesh, 1).frozen[STACKED]
    # Scales and norms come on top of the kernels.
    ratio = total_bytes(frozen) / total_bytes(whole)
    assert bits / 16 < ratio < bits / 16 + 0.1


def test_topologies_are_read():
    assert parse_topology("v4:2x2x4") == Topology("v4", (2, 2, 4), 1)
    assert parse_topology("2*v5e:16x16") == Topology("v5e", (16, 16), 2)
    for bad in (
        "v3:2x2",
        "v4",
        "v4:2x2",
        "v5e:0x4",
        "v5e:2x4x2",
        "v4:2x2x",
        "0*v5e:2x4",
    ):
        with pytest.raises(ValueError, match=re.escape(f"--topology {bad}: ")):
            parse_topology(bad)


def test_a_step_without_memory_says_nothing_about_it(plan):
    silent = Compiled(1, 1.0, None, (), "RESOURCE_EXHAUSTED", None)
    found = as_json(dataclasses.replace(plan, train=silent, chip=CHIPS["v4"]))
    assert found["hbm_gib_per_chip"] is None
    assert found["fits"] is False and found["advice"]
