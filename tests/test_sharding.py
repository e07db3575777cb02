"""Meshes, rules and placement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dcft_jax import sharding

RULES = sharding.Rules.from_config(
    dict(
        slot="ability",
        batch=("slice", "data"),
        embed="data",
        heads="model",
        kv_heads=None,
    )
)


def sizes(ability=2, data=-1, model=2):
    return dict(ability=ability, data=data, model=model)


def test_mesh_fills_in_the_rest_and_is_explicit():
    mesh = sharding.make_mesh(sizes(), jax.devices()[:8])
    assert dict(mesh.shape) == dict(slice=1, ability=2, data=2, model=2)
    assert set(mesh.axis_types) == {AxisType.Explicit}


def test_abstract_mesh_needs_no_devices():
    mesh = sharding.abstract_mesh(sizes(ability=4), 256)
    assert dict(mesh.shape) == dict(slice=1, ability=4, data=32, model=2)
    assert set(mesh.axis_types) == {AxisType.Explicit}


class Chip:
    """A TPU as far as laying out a mesh asks: here on a torus of 2x2 cores."""

    platform, device_kind, core_on_chip = "tpu", "TPU v4", 0

    def __init__(self, number: int, chips_of_slice: int = 4):
        self.id = number
        self.slice_index, place = divmod(number, chips_of_slice)
        self.process_index = self.slice_index
        self.coords = (place % 2, place // 2, 0)


def test_each_slice_of_tpus_is_one_coordinate_of_its_axis():
    chips = [Chip(i) for i in np.random.default_rng(0).permutation(8)]
    for given in (sizes(ability=1), sizes(ability=1) | dict(slice=2)):
        mesh = sharding.make_mesh(given, chips)
        assert dict(mesh.shape) == dict(slice=2, ability=1, data=2, model=2)
        found = [[c.slice_index for c in part.flat] for part in mesh.devices]
        assert found == [[0] * 4, [1] * 4]


def test_slices_that_the_mesh_does_not_have():
    chips = [Chip(i) for i in range(8)]
    for wrong in (1, 4):
        given = sizes(ability=1) | dict(slice=wrong, model=1)
        with pytest.raises(ValueError, match=rf"mesh\.slice={wrong}: .*mesh\.slice=2"):
            sharding.make_mesh(given, chips)
    with pytest.raises(ValueError, match=r"slices of different sizes"):
        sharding.make_mesh(sizes(ability=1, model=1) | dict(slice=2), chips[:6])


def test_devices_without_slices_have_the_axis_all_the_same():
    mesh = sharding.make_mesh(sizes() | dict(slice=2), jax.devices()[:8])
    assert dict(mesh.shape) == dict(slice=2, ability=2, data=1, model=2)


@pytest.mark.parametrize(
    "bad",
    [sizes(ability=3), sizes(data=1), sizes(data=0), sizes(ability=-1), sizes(data=4)],
)
def test_impossible_mesh_is_refused(bad):
    with pytest.raises(ValueError, match=r"mesh\.data=") as error:
        sharding.mesh_shape(bad, 8)
    assert "-1" in str(error.value)


def test_rules_are_hashable_and_stable():
    assert hash(RULES) == hash(sharding.Rules.from_config(dict(RULES.pairs)))
    assert sharding.Rules.from_config(RULES) is RULES


@pytest.mark.parametrize("bad", [dict(embed="modle"), dict(layers="model")])
def test_unknown_names_in_rules_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        sharding.Rules.from_config(bad)


def test_logical_to_spec():
    spec = sharding.logical_to_spec(RULES, ("embed", "heads", None, "kv_heads"))
    assert spec == P("data", "model", None, None)


def test_collision_names_both_axes():
    with pytest.raises(ValueError, match=r"'batch' and 'embed'.*'data'"):
        sharding.logical_to_spec(RULES, ("batch", "embed"))


def test_missing_rule_names_the_field():
    with pytest.raises(ValueError, match=r"mesh\.rules\.mlp"):
        sharding.logical_to_spec(RULES, ("mlp",))


def test_ambient_spec_follows_the_mesh():
    assert sharding.ambient_spec(RULES, ("batch",)) is None
    explicit = sharding.make_mesh(sizes(), jax.devices()[:8])
    with jax.set_mesh(explicit):
        assert sharding.ambient_spec(RULES, ("batch",)) == P(("slice", "data"))
    kinds = (AxisType.Explicit,) * 2 + (AxisType.Auto, AxisType.Explicit)
    partly = jax.make_mesh((1, 2, 2, 2), sharding.AXES, kinds, devices=jax.devices())
    with jax.set_mesh(partly):
        assert sharding.ambient_spec(RULES, ("batch", "heads")) == P("slice", "model")


def test_check_divisible_says_what_to_change():
    mesh = sharding.abstract_mesh(sizes(), 8)
    sharding.check_divisible((4, 6), P("data", "model"), mesh, "x")
    with pytest.raises(ValueError, match=r"x: axis 1 .* size 5.*mesh\.model = 2"):
        sharding.check_divisible((4, 5), P("data", "model"), mesh, "x")
    with pytest.raises(ValueError, match=r"mesh\.slice \* mesh\.data = 2"):
        sharding.check_divisible((5,), P(("slice", "data")), mesh, "x")
    with pytest.raises(ValueError, match="fewer axes"):
        sharding.check_divisible((4,), P("data", "model"), mesh, "x")


def test_place_splits_slots_and_rows_only():
    mesh = sharding.make_mesh(sizes(), jax.devices()[:8])
    tokens_SBL = np.arange(4 * 2 * 3, dtype=np.int32).reshape(4, 2, 3)
    batch = dict(tokens=tokens_SBL, ability=np.arange(4, dtype=np.int32))
    placed = sharding.place(batch, mesh, RULES)
    spec = jax.typeof(placed["tokens"]).sharding.spec
    assert spec == P("ability", ("slice", "data"), None)
    assert placed["tokens"].addressable_shards[0].data.shape == (2, 1, 3)
    assert placed["ability"].sharding.is_fully_replicated
    np.testing.assert_array_equal(placed["tokens"], tokens_SBL)


def test_place_refuses_slots_that_do_not_divide():
    mesh = sharding.make_mesh(sizes(), jax.devices()[:8])
    with pytest.raises(ValueError, match=r"tokens.*num_slots.*mesh\.ability = 2"):
        sharding.place(dict(tokens=np.zeros((3, 2, 4), np.int32)), mesh, RULES)


def test_concretize_keeps_specs_and_key_types():
    mesh = sharding.make_mesh(sizes(), jax.devices()[:8])

    def make():
        table = jax.sharding.reshard(jnp.zeros((4, 4)), P("data", "model"))
        return dict(table=table, key=jax.random.key(0), step=jnp.zeros((), jnp.int32))

    with jax.set_mesh(mesh):
        abstract = jax.eval_shape(make)
    concrete = sharding.concretize(abstract, mesh)
    assert concrete["table"].sharding == NamedSharding(mesh, P("data", "model"))
    assert concrete["step"].sharding == NamedSharding(mesh, P())
    assert concrete["key"].dtype == abstract["key"].dtype


def test_replicate_and_match_sharding():
    mesh = sharding.make_mesh(sizes(), jax.devices()[:8])
    with jax.set_mesh(mesh):
        split = jax.jit(lambda x: jax.sharding.reshard(x, P("data", "model")))
        x = split(jnp.arange(16.0).reshape(4, 4))
        whole = jax.jit(sharding.replicate)(x)
        again = jax.jit(sharding.match_sharding)(whole, x)
    assert whole.sharding.is_fully_replicated
    assert again.sharding == x.sharding
    np.testing.assert_array_equal(again, np.arange(16.0).reshape(4, 4))


def test_replicate_without_a_mesh_is_the_identity():
    x = jnp.arange(4.0)
    assert sharding.replicate(x) is x
    assert sharding.match_sharding(x, x) is x


def test_parts_of_a_logical_axis():
    rules = sharding.Rules.from_config(
        dict(batch=("ability", "data"), heads="model", mlp=None)
    )
    assert sharding.num_parts(rules, "batch") == 1
    mesh = sharding.make_mesh(dict(ability=2, data=2, model=2), jax.devices()[:8])
    with jax.set_mesh(mesh):
        parts = [sharding.num_parts(rules, name) for name in ("batch", "heads", "mlp")]
    assert parts == [4, 2, 1]


@pytest.mark.parametrize("num_processes", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 2, 4, 1), (2, 2, 2, 1), (1, 2, 2, 2)])
def test_needed_rows_are_those_of_the_devices(shape, num_processes, monkeypatch):
    devices = np.random.default_rng(0).permutation(np.array(jax.devices()[:8]))
    mesh = jax.sharding.Mesh(
        devices.reshape(shape), sharding.AXES, axis_types=(AxisType.Explicit,) * 4
    )
    owner = {d: i % num_processes for i, d in enumerate(jax.devices()[:8])}
    rows_SB = np.arange(4 * 8, dtype=np.int32).reshape(4, 8)
    placed = sharding.place(dict(rows=rows_SB), mesh, RULES)["rows"]
    needed = []
    for process in range(num_processes):
        found = needed_rows_of(mesh, process, owner, monkeypatch)
        held = [
            np.asarray(shard.data).ravel()
            for shard in placed.addressable_shards
            if owner[shard.device] == process
        ]
        assert set(rows_SB[found]) == set(np.concatenate(held))
        needed.append(found)
    assert np.any(needed, axis=0).all()


def needed_rows_of(mesh, process, owner, monkeypatch):
    """With devices that belong to processes as `owner` says."""

    class Owned:
        def __init__(self, device):
            self.process_index = owner[device]

    original = NamedSharding.devices_indices_map

    def owned(self, shape):
        return {Owned(d): i for d, i in original(self, shape).items()}

    with monkeypatch.context() as patch:
        patch.setattr(NamedSharding, "devices_indices_map", owned)
        return sharding.needed_rows((4, 8), mesh, RULES, process)
