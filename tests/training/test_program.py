"""What the compiled step is, whatever the size of the model."""

from typing import Any

import jax
import numpy as np
import pytest

from dcft_jax.models import ModelConfig
from dcft_jax.planning.arguments import make_arguments
from dcft_jax.sharding import make_mesh
from dcft_jax.training.program import build_program
from tests.planning.conftest import small_config


def lowered(num_layers: int, engine: str = "materialize", **fields):
    """The train step on eight devices, and the number of arrays in its state."""
    config = small_config()
    config.conflict.engine = engine
    config.model.update(num_layers=num_layers, **fields)
    model = ModelConfig.from_config(config.model, 512, config.mesh.rules)
    program = build_program(
        config, model, np.ones((2, 1), int), np.zeros((2, 8), np.int8)
    )
    mesh = make_mesh(config.mesh)
    arguments = make_arguments(config, program, mesh, examples_per_row=4)
    train_step: Any = program.train_step
    with jax.set_mesh(mesh):
        step = train_step.lower(*arguments[:3])
    return step, len(jax.tree.leaves(arguments.state))


# Windows differ from layer to layer, and a tap sits on every parameter.
@pytest.mark.parametrize(
    ("engine", "fields"),
    [
        ("materialize", {}),
        ("materialize", dict(remat="none", sliding_window=8, global_every=2)),
        ("lagged", dict(remat="dots")),
        ("two_pass", {}),
    ],
)
def test_the_program_does_not_grow_with_depth(engine: str, fields: dict):
    shallow, deep = (lowered(n, engine, **fields)[0].as_text() for n in (2, 8))
    assert "stablehlo.while" in shallow
    assert len(shallow.splitlines()) == len(deep.splitlines())


@pytest.mark.slow
def test_compiled_it_does_not_grow_either_and_the_state_takes_its_own_place():
    texts = []
    for num_layers in (2, 8):
        step, num_arrays = lowered(num_layers)
        compiled = step.compile()
        texts.append(compiled.as_text())
        memory = compiled.memory_analysis()
        # All that is not written over the state are the metrics.
        fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
        assert 0 < fresh < 4096 < memory.alias_size_in_bytes
        header = texts[-1].splitlines()[0]
        aliased = header.count("may-alias") + header.count("must-alias")
        # Two arrays of the mixture come from the batch and are never read.
        assert aliased >= num_arrays - 2
    counts = [text.count(" = ") for text in texts]
    # One more layer, unrolled, would be hundreds of instructions.
    assert abs(counts[1] - counts[0]) <= 0.02 * counts[0]
