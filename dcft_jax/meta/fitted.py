"""A fitted ensemble, and its file."""

import functools
import json
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.meta.domain import Domain
from dcft_jax.meta.features import ABILITY, PAIR, TASK
from dcft_jax.meta.inputs import Statistics
from dcft_jax.meta.network import Params, Shape, init

VERSION = 1
FEATURES = {"task": [*TASK], "ability": [*ABILITY], "pair": [*PAIR]}


class Fitted(NamedTuple):
    """What `predict` needs.

    Attributes:
        params: of the ensemble, members on the leading axis of every leaf.
        statistics: of the features of the training cases.
        shape: of the networks.
        strength: in [0, 1], what the correction is multiplied by.
        power: of the sizes, in [0, 1]: the prior that was best to correct.
        held_out_regret: mean regret over spread on tasks of categories that the members
            asked had not seen, at this strength.
        prior_regret: the same of the prior.
        domain: what it was fitted on.
    """

    params: Params
    statistics: Statistics
    shape: Shape
    strength: float
    power: float
    held_out_regret: float
    prior_regret: float
    domain: Domain

    @property
    def members(self) -> int:
        return len(jax.tree.leaves(self.params)[0])


def save(fitted: Fitted, path: str | os.PathLike) -> None:
    """Writes one safetensors file, whole or not at all; numbers are in its header."""
    arrays = {
        **_named("params", fitted.params),
        **{f"statistics/{k}": v for k, v in fitted.statistics._asdict().items()},
        **{f"domain/{k}": v for k, v in _arrays(fitted.domain).items()},
    }
    domain = fitted.domain._asdict()
    about = {
        "version": VERSION,
        "features": FEATURES,
        "shape": fitted.shape._asdict(),
        "members": fitted.members,
        "strength": fitted.strength,
        "power": fitted.power,
        "held_out_regret": fitted.held_out_regret,
        "prior_regret": fitted.prior_regret,
        "domain": {k: v for k, v in domain.items() if k not in _arrays(fitted.domain)},
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    atomic_write(path, to_bytes(arrays, metadata={"dcft_jax.meta": json.dumps(about)}))


def load(path: str | os.PathLike) -> Fitted:
    """What `save` wrote, bit for bit.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no file of `save`, of another version, or of other features.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{os.fspath(path)}: no fitted network; `fit` makes one"
        )
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    about = _about(os.fspath(path), header)
    try:
        return _assemble(about, arrays)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(path)}: incomplete, {error!r}; fit the network again"
        ) from error


def _about(path: str, header: dict[str, str]) -> dict[str, Any]:
    if "dcft_jax.meta" not in header:
        raise ValueError(f"{path}: a safetensors file, but no fitted meta-network")
    about = json.loads(header["dcft_jax.meta"])
    if about.get("version") != VERSION:
        raise ValueError(
            f"{path}: version {about.get('version')}, this program reads {VERSION}; "
            "fit the network again"
        )
    if about["features"] != FEATURES:
        other = {
            kind: sorted({*about["features"].get(kind, [])} ^ {*names})
            for kind, names in FEATURES.items()
            if about["features"].get(kind) != names
        }
        raise ValueError(
            f"{path}: fitted on other features, or in another order: {other}; fit the "
            "network again"
        )
    return about


def _assemble(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Fitted:
    shape = Shape(**about["shape"])
    template = jax.eval_shape(functools.partial(init, shape), jax.random.key(0))
    names = [*_named("params", template)]
    leaves = [arrays[name] for name in names]
    for name, leaf, wanted in zip(
        names, leaves, jax.tree.leaves(template), strict=True
    ):
        if leaf.shape != (about["members"], *wanted.shape):
            raise KeyError(f"{name} has shape {leaf.shape}")
    domain: dict[str, Any] = {**about["domain"], **_under("domain", arrays)}
    domain["categories"] = tuple(domain["categories"])
    domain["num_abilities"] = tuple(domain["num_abilities"])
    return Fitted(
        params=jax.tree.unflatten(jax.tree.structure(template), leaves),
        statistics=Statistics(**_under("statistics", arrays)),
        shape=shape,
        strength=about["strength"],
        power=about["power"],
        held_out_regret=about["held_out_regret"],
        prior_regret=about["prior_regret"],
        domain=Domain(**domain),
    )


def _named(prefix: str, tree: Any) -> dict[str, Any]:
    return {
        "/".join([prefix, *(str(getattr(key, "key", key)) for key in path)]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    start = prefix + "/"
    return {
        name.removeprefix(start): array
        for name, array in arrays.items()
        if name.startswith(start)
    }


def _arrays(domain: Domain) -> dict[str, np.ndarray]:
    return {k: v for k, v in domain._asdict().items() if isinstance(v, np.ndarray)}
