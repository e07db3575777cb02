"""What to change when a run does not fit, with what each change would give."""

import dataclasses
import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from dcft_jax.models import LoRA, ModelConfig
from dcft_jax.planning.arguments import bytes_per_chip, make_arguments, total_bytes
from dcft_jax.planning.plan import Plan
from dcft_jax.sharding import make_mesh, num_parts
from dcft_jax.training.program import build_program

GIB = 2**30
RANK = 16  # of the adapters that are tried


def advise(plan: Plan) -> list[str]:
    """Lines of advice; none if the steps fit, or nothing is known about the device."""
    if plan.fits is not False:
        return []
    return [*_about_steps(plan), *_about_state(plan), *_about_chips(plan)]


def _about_steps(plan: Plan) -> Iterator[str]:
    """What makes the temporaries smaller. Each is to be planned again: only the
    compiler knows what they become.
    """
    config = plan.config
    data, model = config.data, plan.program.model
    if model.remat != "full":
        yield (
            f'config.model.remat = "full" (now "{model.remat}"): keeps one layer\'s '
            "activations instead of all; costs about a third more operations"
        )
    if not model.logits_chunk:
        logits = 4 * plan.tokens_per_step * model.vocab_size / plan.mesh.size / GIB
        yield (
            f"config.model.logits_chunk = 256 (now 0): the logits of all response "
            f"tokens are up to {logits:.2f} GiB of each chip at a time"
        )
    if config.conflict.engine == "materialize":
        gradients = len(config.abilities) * bytes_per_chip(plan.arguments.state.params)
        yield (
            'config.conflict.engine = "two_pass" or "lagged" (now "materialize"): does '
            "not keep a gradient for every ability, here up to "
            f"{gradients / plan.mesh.shape['ability'] / GIB:.2f} GiB of each chip"
        )
    rows = num_parts(model.rules, "batch", plan.mesh)
    if data.rows_per_slot // config.optimizer.accumulate > rows:
        yield (
            f"config.optimizer.accumulate = {2 * config.optimizer.accumulate} (now "
            f"{config.optimizer.accumulate}), or config.data.rows_per_slot = "
            f"{data.rows_per_slot // 2}: half the activations at a time"
        )


def _about_state(plan: Plan) -> Iterator[str]:
    """What makes the state smaller, computed from the shapes of the changed state."""
    now = _state_gib(plan, plan.config, plan.program.model)
    for text, config, model in _changes(plan):
        try:
            then = _state_gib(plan, config, model)
        except ValueError:
            continue  # the mesh does not divide it
        if then is not None and now is not None and then < 0.95 * now:
            yield f"{text}: {then:.2f} GiB of state per chip instead of {now:.2f}"


def _changes(plan: Plan) -> Iterator[tuple[str, ConfigDict, ModelConfig]]:
    model, sizes = plan.program.model, plan.mesh.shape
    if sizes["ability"] > 1:
        config = ConfigDict(plan.config)
        folded = sizes["ability"] * sizes["data"]
        config.mesh.update(ability=1, data=folded, model=sizes["model"])
        text = f"config.mesh.ability = 1 and config.mesh.data = {folded}"
        yield text, config, model
    if model.param_dtype == "float32":
        smaller = dataclasses.replace(model, param_dtype="bfloat16")
        yield 'config.model.param_dtype = "bfloat16"', plan.config, smaller
    if model.lora is None:
        config = ConfigDict(plan.config)
        config.lora.rank = RANK
        adapted = dataclasses.replace(model, lora=LoRA.from_config(config.lora))
        text = f"config.lora.rank = {RANK}, on a model of config.pretrained.path"
        yield text, config, adapted


def _state_gib(plan: Plan, config: ConfigDict, model: ModelConfig) -> float:
    """Of one chip: the state and the frozen parameters."""
    mesh = make_mesh(config.mesh, list(plan.mesh.devices.flat))
    sizes = plan.sizes
    program = build_program(config, model, sizes.size_KT, sizes.tier_KN)
    arguments = make_arguments(config, program, mesh, sizes.examples_per_row)
    return bytes_per_chip((arguments.state, arguments.frozen)) / GIB


def _about_chips(plan: Plan) -> Iterator[str]:
    """Where the state alone takes more than half of what there is."""
    kept = (plan.arguments.state, plan.arguments.frozen)
    if plan.chip is None or 2 * bytes_per_chip(kept) < plan.chip.hbm_gib * GIB:
        return
    state = total_bytes(kept)
    least = math.ceil(state / (plan.chip.hbm_gib * GIB))
    yield (
        f"more chips: the state alone is {state / GIB:.1f} GiB, that is {least} chips "
        f"of {plan.chip.hbm_gib:g} GiB if nothing is held twice (now {plan.mesh.size})"
    )
