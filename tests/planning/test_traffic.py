"""Collectives read off programs whose traffic is known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dcft_jax.planning.traffic import (
    axes_of,
    bytes_by_kind,
    collectives,
    crosses_slices,
)
from dcft_jax.sharding import make_mesh

# Lines as the compiler for TPU writes them; loops have no trip count there.
TPU = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%all-reduce-scatter.2 (input_0: f32[16,256]) -> f32[16,128] {
  %input_0 = f32[16,256]{1,0:T(8,128)S(3)} parameter(0)
  %all-reduce.95 = f32[16,256]{1,0:T(8,128)} all-reduce(%input_0), channel_id=1, \
replica_groups={{0,2},{1,3},{4,6},{5,7}}, use_global_device_ids=true, to_apply=%add
  ROOT %part = f32[16,128]{1,0:T(8,128)} dynamic-slice(%all-reduce.95, %start)
}

%condition.1 (state: (s32[], bf16[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5), metadata={op_name="cond/lt"}
  %state = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body.1 (state.1: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %state.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %all-gather.7 = bf16[8,128]{1,0:T(8,128)(2,1)S(3)} all-gather(%x), channel_id=3, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, dimensions={0}
  ROOT %next = (s32[]{:T(128)}, bf16[8,128]{1,0}) tuple(%i.1, %all-gather.7)
}

ENTRY %main.9 (p: bf16[8,128]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %loop = (s32[]{:T(128)}, bf16[8,128]{1,0}) while(%init), condition=%condition.1, \
body=%body.1
  %fusion.3 = f32[16,128]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.2
  %permute = (f32[4,2]{1,0}, f32[4,2]{1,0}, u32[], u32[]) \
collective-permute-start(%q), channel_id=5, source_target_pairs={{0,0},{1,2},{2,1}}
  %done = f32[4,2]{1,0} collective-permute-done(%permute)
  %shuffled = f32[8,2]{1,0} all-to-all(%r), channel_id=6, \
replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  ROOT %out = bf16[8,128]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return make_mesh(dict(ability=2, data=2, model=2))


def test_a_program_for_a_tpu(mesh):
    found = {c.kind: (c.total, axes_of(c.groups, mesh)) for c in collectives(TPU)}
    assert found == {
        "all-gather": (5 * 8 * 128 * 2, "ability"),
        "reduce-scatter": (16 * 256 * 4 // 2, "data"),
        "collective-permute": (4 * 2 * 4, "data+model"),
        "all-to-all": (8 * 2 * 4, "ability"),
    }


def test_a_loop_of_unknown_length_is_told():
    text = TPU.replace("compare(%i, %limit), direction=LT", "and(%i, %limit)")
    gather = next(c for c in collectives(text) if c.kind == "all-gather")
    assert (gather.runs, gather.certain) == (1, False)
    assert all(c.certain for c in collectives(TPU))


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("mesh['a'=2,'b'=2,'c'=2] {'b'}", "data"),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", "ability+model"),
        ("mesh['a'=4,'b'=2], device_ids=([2,2,2]T(2,1,0)) {'b'}", "ability"),
        ("mesh['a'=8] {'a':(2)2}", "data"),
        ("[1,8]<=[8]", "ability+data+model"),
        ("[4,2]<=[8]", "model"),
        ("{{0},{1},{2},{3},{4},{5},{6},{7}}", "none"),
        ("{}", "ability+data+model"),
    ],
)
def test_groups_of_devices_name_mesh_axes(mesh, groups: str, axes: str):
    text = TPU.replace("[4,2]<=[2,4]T(1,0)", groups)
    found = next(c for c in collectives(text) if c.kind == "all-to-all")
    assert axes_of(found.groups, mesh) == axes
    assert not crosses_slices(found.groups, mesh)


def test_what_the_compiler_writes_here(mesh):
    """A reduction in a loop and a gather outside, compiled for eight devices."""

    def step(x, w):
        def body(carry, _):
            product = jnp.einsum("bd,de->be", x, w, out_sharding=P("data", None))
            return carry + product, None

        carry = jnp.zeros((4, 16), out_sharding=P("data", None))
        total, _ = jax.lax.scan(body, carry, length=6)
        return jnp.sin(jax.reshard(total, P(None, None)))

    def array(shape, *names):
        return jax.ShapeDtypeStruct(
            shape, jnp.float32, sharding=NamedSharding(mesh, P(*names))
        )

    with jax.set_mesh(mesh):
        arguments = array((4, 8), "data", "model"), array((8, 16), "model", None)
        text = jax.jit(step).lower(*arguments).compile().as_text()
    found = {(c.kind, axes_of(c.groups, mesh)): c.runs for c in collectives(text)}
    assert found[("all-gather", "data")] == 1
    reduced = found[("all-reduce", "model")]
    assert reduced in (1, 6)  # the compiler may take it out of the loop
    assert bytes_by_kind(text)["all-reduce"] == reduced * (4 // 2) * 16 * 4
    assert bytes_by_kind(text)["all-gather"] == 4 * 16 * 4


# Of two slices, as the compiler for TPU writes it; numbers of chips are of a slice.
BETWEEN = """HloModule jit_step

ENTRY %main.1 (p: bf16[64,8,128]) -> bf16[64,8,128] {
  %p = bf16[64,8,128]{2,1,0} parameter(0)
  %send.1 = (bf16[64,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%p, %t), \
channel_id=8, is_host_transfer=true, frontend_attributes={ATTRIBUTES}
  %recv.1 = (bf16[64,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) recv(%t), \
channel_id=7, is_host_transfer=true, frontend_attributes={ATTRIBUTES}
  %inside = f32[4]{0} all-reduce(%q), channel_id=9, replica_groups={{0,1},{2,3}}, \
use_global_device_ids=true, to_apply=%add
  ROOT %out = bf16[64,8,128]{2,1,0} get-tuple-element(%recv.1), index=0
}
""".replace(
    "ATTRIBUTES",
    '_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_target='
    '"{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"',
)


def test_what_hosts_carry_between_slices():
    mesh = make_mesh(dict(slice=2, ability=2, data=2, model=1))
    between, inside = collectives(BETWEEN)
    assert between.groups == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert (between.kind, between.total) == ("all-reduce", 64 * 8 * 128 * 2)
    assert axes_of(between.groups, mesh) == "slice"
    assert axes_of(inside.groups, mesh) == "data"
    # Transfers to the host that are none between slices count for nothing.
    other = BETWEEN.replace("_xla_megascale_transfer_type", "_xla_other")
    assert [one.kind for one in collectives(other)] == ["all-reduce"]


def test_what_leaves_a_slice():
    devices = np.array([SimpleNamespace(slice_index=i // 4) for i in range(8)])
    two = SimpleNamespace(devices=devices.reshape(2, 2, 2), size=8)
    assert crosses_slices(((0, 4), (1, 5)), two) and crosses_slices((), two)
    assert not crosses_slices(((0, 1, 2, 3), (4, 5, 6, 7)), two)
