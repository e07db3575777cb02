"""Validation of the model group, and which layers are windowed."""

import pytest

from configs import base
from dcft_jax.models import ModelConfig, check_mesh
from dcft_jax.sharding import abstract_mesh


def make(**fields) -> ModelConfig:
    config = base.get_config()
    config.model.update(fields)
    return ModelConfig.from_config(config.model, 64, config.mesh.rules)


def test_every_field_of_the_config_is_a_field_of_the_model():
    assert hash(make()) == hash(make())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_heads=5), r"model\.num_heads=5 .*model\.num_kv_heads=2"),
        (dict(head_dim=7), r"model\.head_dim=7 must be even"),
        (dict(activation="relu"), r"model\.activation='relu' must be one of"),
        (dict(remat="some"), r"model\.remat='some'"),
        (dict(compute_dtype="int8"), r"model\.compute_dtype='int8'"),
        (dict(num_layers=0), r"model\.num_layers=0 must be positive"),
        (dict(logits_softcap=-1.0), r"model\.logits_softcap=-1\.0 must not be neg"),
        (dict(global_every=2), r"model\.global_every=2 needs model\.sliding_window"),
        (dict(rope_scaling_factor=8.0), r"rope_scaling_factor=8\.0 has no effect"),
        (dict(rope_high_frequency_factor=1.0), "rope_high_frequency_factor=1.0 must"),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_layer_pattern():
    assert make(num_layers=3).is_local() == (False,) * 3
    assert make(num_layers=3, sliding_window=4).is_local() == (True,) * 3
    gemma3 = make(num_layers=7, sliding_window=4, global_every=3)
    assert gemma3.is_local() == (True, True, False, True, True, False, True)


def test_check_mesh_names_what_does_not_divide():
    mesh = abstract_mesh(dict(ability=1, data=1, model=4), 4)
    with pytest.raises(ValueError, match=r"model\.num_kv_heads .*mesh\.model = 4"):
        check_mesh(make(), mesh)
    check_mesh(make(num_kv_heads=4), mesh)
