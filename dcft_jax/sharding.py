"""Device meshes, logical-axis rules, and placing arrays on a mesh.

A parameter or activation names its axes logically ("embed", "heads"); rules map each
name to an axis of the mesh, or to None (replicated). All meshes are explicit: the
sharding of an array is part of its type, so gradients come out sharded like the
parameters and a missing collective is an error at tracing time, not a slow program.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Only the network of the data centre joins slices of TPUs: their axis is outermost.
AXES = ("slice", "ability", "data", "model")
LOGICAL_AXES = ("slot", "batch", "embed", "vocab", "heads", "kv_heads", "mlp")

MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which mesh axis each logical axis is split over; None: replicated.

    Hashable, so that it can be part of a static argument of `jax.jit`.
    """

    pairs: tuple[tuple[str, MeshAxes], ...]

    @classmethod
    def from_config(cls, rules: "Rules | Mapping[str, Any]") -> "Rules":
        """From `config.mesh.rules`.

        Raises:
          ValueError: if a logical axis is not one of `LOGICAL_AXES`, or a mesh axis
            not one of `AXES`.
        """
        if isinstance(rules, Rules):
            return rules
        pairs = [
            (name, tuple(axes) if isinstance(axes, list) else axes)
            for name, axes in dict(rules).items()
        ]
        for name, axes in pairs:
            _check_rule(name, axes)
        return cls(tuple(pairs))


def set_cpu_devices(number: int) -> None:
    """Splits the CPU into `number` devices, if it is what computes; 0 leaves it whole.

    To be called before anything runs on a device.
    """
    if number:
        jax.config.update("jax_num_cpu_devices", number)
    if number > 1:
        # Devices share the threads of the CPU. With several programs in flight, one
        # whose devices wait for each other can keep those from ever running.
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def mesh_shape(mesh_config: Mapping[str, Any], num_devices: int) -> tuple[int, ...]:
    """Sizes of the axes `AXES`, with one -1 filled in; `slice` is 1 unless given.

    Raises:
      ValueError: if the sizes do not use exactly `num_devices` devices.
    """
    sizes = {name: int(({"slice": 1} | dict(mesh_config))[name]) for name in AXES}
    given = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    if any(size < 1 and size != -1 for size in sizes.values()) or len(free) > 1:
        raise ValueError(
            f"{given}: every size must be positive, at most one may be -1 (the rest)"
        )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and num_devices % fixed == 0:
        sizes[free[0]] = num_devices // fixed
    elif fixed != num_devices or free:
        raise ValueError(
            f"{given}: the fixed sizes multiply to {fixed}, which does not fit "
            f"{num_devices} devices; set one size to -1 and let the others divide "
            f"{num_devices}"
        )
    return tuple(sizes.values())


def make_mesh(mesh_config: Mapping[str, Any], devices=None) -> Mesh:
    """Explicit mesh with axes ("slice", "ability", "data", "model").

    Where devices lie in several slices, each coordinate of `slice` is one of them, and
    the other axes stay inside it. Where they do not, `slice` is an axis like any other.

    Args:
      mesh_config: sizes `slice`, `ability`, `data`, `model`; one may be -1 (all that
        are left). Without `slice`, as many as the devices lie in.
      devices: the devices to use; all of them if None.

    Raises:
      ValueError: if the sizes do not use exactly the given devices, or `slice` is not
        the number of their slices.
    """
    devices = jax.devices() if devices is None else devices
    slices = [getattr(device, "slice_index", None) or 0 for device in devices]
    number = len(set(slices))
    shape = mesh_shape({"slice": number} | dict(mesh_config), len(devices))
    uneven = len({slices.count(one) for one in slices}) > 1
    if number > 1 and (shape[0] != number or uneven):
        raise ValueError(
            f"mesh.slice={shape[0]}: the {len(devices)} devices lie in {number} slices"
            f"{' of different sizes' if uneven else ''}; set mesh.slice={number} and "
            "use whole slices of one size"
        )
    # A mesh may split an axis of the torus: not every shape is a product of its axes.
    if number == 1:
        table = mesh_utils.create_device_mesh(
            shape, devices, allow_split_physical_axes=True
        )
    else:
        table = mesh_utils.create_hybrid_device_mesh(
            (1, *shape[1:]),
            (number, *(1,) * (len(AXES) - 1)),
            devices,
            allow_split_physical_axes=True,
        )
    return Mesh(table, AXES, axis_types=(AxisType.Explicit,) * len(AXES))


def abstract_mesh(mesh_config: Mapping[str, Any], num_devices: int) -> AbstractMesh:
    """The same mesh without devices, to check shardings of a program by tracing it."""
    shape = mesh_shape(mesh_config, num_devices)
    return AbstractMesh(shape, AXES, axis_types=(AxisType.Explicit,) * len(AXES))


def logical_to_spec(rules: Rules, names: Iterable[str | None]) -> P:
    """Partition of an array whose axes have these logical names (None: replicated).

    Raises:
      ValueError: if a name has no rule, or two names of the array share a mesh axis.
    """
    table = dict(rules.pairs)
    owner: dict[str, str] = {}
    entries = []
    for name in names:
        if name is not None and name not in table:
            raise ValueError(
                f"no rule for the logical axis {name!r}; add mesh.rules.{name} "
                f"(a mesh axis or None) to {sorted(table)}"
            )
        entry = table[name] if name is not None else None
        for axis in _axes(entry):
            if axis in owner:
                raise ValueError(
                    f"mesh.rules maps {owner[axis]!r} and {name!r} of one array to the "
                    f"mesh axis {axis!r}; map one of them to another axis or to None"
                )
            owner[axis] = str(name)
        entries.append(entry)
    return P(*entries)


def ambient_spec(rules: Rules, names: Iterable[str | None]) -> P | None:
    """`logical_to_spec` for the mesh of `jax.set_mesh`; None where there is none.

    Axes which the mesh does not hold explicitly (automatic, or manual inside
    `jax.shard_map`) are left out: there is nothing to declare about them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.explicit_axes:
        return None
    spec = logical_to_spec(rules, names)
    kept = [[a for a in _axes(entry) if a not in _implicit(mesh)] for entry in spec]
    return P(*(tuple(k) if len(k) > 1 else (k[0] if k else None) for k in kept))


def num_parts(rules: Rules, name: str, mesh: Mesh | None = None) -> int:
    """Into how many parts a logical axis is split.

    Args:
      mesh: by which; None: the mesh of `jax.set_mesh`.
    """
    if mesh is not None:
        (entry,) = logical_to_spec(rules, (name,))
        return math.prod(mesh.shape[axis] for axis in _axes(entry))
    spec = ambient_spec(rules, (name,))
    shape = jax.sharding.get_abstract_mesh().shape
    return 1 if spec is None else math.prod(shape[axis] for axis in _axes(spec[0]))


def fields_of(rules: Rules, name: str) -> str:
    """The fields of the config that say how a logical axis is split, for messages."""
    (entry,) = logical_to_spec(rules, (name,))
    return " * ".join(f"mesh.{axis}" for axis in _axes(entry)) or f"mesh.rules.{name}"


def check_divisible(
    shape: tuple[int, ...], spec: P, mesh: Mesh | AbstractMesh, what: str
) -> None:
    """Raises ValueError if the spec splits an axis of `what` unevenly on the mesh."""
    if len(spec) > len(shape):
        raise ValueError(f"{what} of shape {shape} has fewer axes than {spec}")
    for index, entry in enumerate(spec):
        parts = math.prod(mesh.shape[axis] for axis in _axes(entry))
        if shape[index] % parts:
            fields = " * ".join(f"mesh.{axis}" for axis in _axes(entry))
            raise ValueError(
                f"{what}: axis {index} of shape {shape} has size {shape[index]}, which "
                f"{fields} = {parts} does not divide; change the size, {fields}, or "
                "map the axis to None in mesh.rules"
            )


def place(batch: Mapping[str, np.ndarray], mesh: Mesh, rules: Rules) -> dict[str, Any]:
    """Host batch -> global arrays on the mesh.

    Arrays of two or more axes are [S, B, ...] and are split over slots and rows;
    vectors and scalars (`ability_S`) are replicated. With several processes, each
    passes whole arrays, but of the former only `needed_rows` are read.

    Raises:
      ValueError: if the slots or rows do not divide over the mesh.
    """
    return {name: _place_one(name, x, mesh, rules) for name, x in batch.items()}


def needed_rows(
    shape: tuple[int, int], mesh: Mesh, rules: Rules, process: int | None = None
) -> np.ndarray:
    """Which of S slots and B rows are on devices of a process, bool [S, B].

    As the layout of a batch says: devices of a process may be anywhere on the mesh, and
    processes that hold the same rows all need them.

    Args:
      process: its number; None: this one.
    """
    process = jax.process_index() if process is None else process
    sharding = NamedSharding(mesh, logical_to_spec(rules, ("slot", "batch")))
    needed_SB = np.zeros(shape, bool)
    for device, index in sharding.devices_indices_map(shape).items():
        if device.process_index == process:
            needed_SB[index] = True
    return needed_SB


def concretize(abstract_tree: Any, mesh: Mesh) -> Any:
    """Abstract arrays with shardings on `mesh`, as a checkpoint restore needs them.

    Args:
      abstract_tree: what `jax.eval_shape` returns; its shardings are on an abstract
        mesh, or None (replicated).
    """

    def concrete(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = leaf.sharding.spec if isinstance(leaf.sharding, NamedSharding) else P()
        # In full, as the outputs of a jitted step have it: P() and P(None) are the
        # same layout, but not the same type, and would compile the step twice.
        sharding = NamedSharding(mesh, P(*spec, *(None,) * (leaf.ndim - len(spec))))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(concrete, abstract_tree)


def replicate(tree: Any) -> Any:
    """Every array whole on every device of the mesh of `jax.set_mesh`, if there is one.

    Works inside and outside `jax.jit`.
    """
    return jax.tree.map(lambda x: _reshard(x, P(*(None,) * x.ndim)), tree)


def match_sharding(tree: Any, like: Any) -> Any:
    """The arrays of `tree`, each laid out as its counterpart in `like`."""
    return jax.tree.map(
        lambda x, other: _reshard(x, jax.typeof(other).sharding.spec), tree, like
    )


def _reshard(x: jax.Array, spec: P) -> jax.Array:
    if not jax.sharding.get_abstract_mesh().explicit_axes:
        return x
    return jax.sharding.reshard(x, spec)


def _place_one(name: str, array: np.ndarray, mesh: Mesh, rules: Rules) -> jax.Array:
    spec = P()
    if array.ndim > 1:
        spec = logical_to_spec(rules, ("slot", "batch") + (None,) * (array.ndim - 2))
    what = f"{name} (axes: data.num_slots, data.rows_per_slot, ...)"
    check_divisible(array.shape, spec, mesh, what)
    return jax.make_array_from_callback(
        array.shape, NamedSharding(mesh, spec), lambda index: np.asarray(array[index])
    )


def _check_rule(name: str, axes: MeshAxes) -> None:
    if name not in LOGICAL_AXES:
        raise ValueError(
            f"mesh.rules.{name}: unknown logical axis; known: {LOGICAL_AXES}"
        )
    for axis in _axes(axes):
        if axis not in AXES:
            raise ValueError(
                f"mesh.rules.{name}={axis!r} is not a mesh axis; use one of {AXES} "
                "or None"
            )


def _axes(entry: MeshAxes) -> tuple[str, ...]:
    """Mesh axes of one entry of a PartitionSpec."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _implicit(mesh: AbstractMesh) -> tuple[str, ...]:
    return tuple(a for a in mesh.axis_names if a not in mesh.explicit_axes)


def on_host(array: jax.Array) -> np.ndarray:
    """All of it, in every process. All call it, if there are several."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
