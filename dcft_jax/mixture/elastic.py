"""A mixture's state when abilities are added: nothing that was learnt is lost."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def carry_over(old: Any, fresh: Any, index_K: Sequence[int], added: float) -> Any:
    """The state `old` of fewer abilities in the shape of `fresh`, one of more.

    Along an axis of abilities old entries go to their new places, and those of added
    abilities are the fresh ones; along other axes (tiers, examples) they keep their
    places. Logarithms of a mixture, the fields named `log_weights_K` and
    `log_importance_K`, make room: added abilities enter with `added` in all, divided as
    in `fresh`, and the others keep their proportions. `log_prior_K` is the fresh one.

    Args:
      old: nested mappings, by the names of the fields, or the pytree itself.
      fresh: from `init`, for all abilities.
      index_K: for each old ability, which of the new ones it is.
      added: share of the prior that the added abilities have, in [0, 1).

    Raises:
      KeyError, TypeError: `old` is not a state of the same kind.
    """
    old_size = len(index_K)

    def one(path, leaf):
        value, name = _look_up(old, path), _name(path[-1]) if path else ""
        if name == "log_prior_K":
            return leaf
        placed = _place(np.asarray(value), np.asarray(leaf), index_K)
        if name in ("log_weights_K", "log_importance_K") and old_size < len(leaf):
            placed = _make_room(placed, index_K, added)
        return jnp.asarray(placed, leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, fresh)


def _place(old: np.ndarray, fresh: np.ndarray, index_K: Sequence[int]) -> np.ndarray:
    if old.ndim != fresh.ndim:
        raise TypeError(f"a field has the shape {old.shape}, expected {fresh.shape}")
    sources, targets = [], []
    for before, after in zip(old.shape, fresh.shape, strict=True):
        kept = min(before, after)
        grows = before == len(index_K) and after != before
        sources.append(np.arange(before if grows else kept))
        targets.append(np.asarray(index_K) if grows else np.arange(kept))
    placed = fresh.copy()
    placed[np.ix_(*targets)] = old[np.ix_(*sources)]
    return placed


def _make_room(log_K: np.ndarray, index_K: Sequence[int], added: float) -> np.ndarray:
    kept_K = np.isin(np.arange(len(log_K)), index_K)
    weight_K = np.exp(log_K.astype(np.float64))
    weight_K[kept_K] *= (1.0 - added) / weight_K[kept_K].sum()
    weight_K[~kept_K] *= added / weight_K[~kept_K].sum()
    return np.log(np.maximum(weight_K, 1e-30))


def _look_up(tree: Any, path: Sequence[Any]) -> Any:
    for key in path:
        name = _name(key)
        if isinstance(tree, Mapping):
            tree = tree[name]
        elif isinstance(tree, (list, tuple)) and name.isdigit():
            tree = tree[int(name)]
        else:
            tree = getattr(tree, name)
    return tree


def _name(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"unknown kind of key {key!r}")
