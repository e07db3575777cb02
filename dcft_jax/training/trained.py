"""The model of a run: configuration, tokenizer and parameters, from its folder."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from dcft_jax.data import Tokenizer
from dcft_jax.models import (
    ModelConfig,
    Opened,
    Params,
    abstract_params,
    check_mesh,
    combine,
    split,
)
from dcft_jax.sharding import make_mesh
from dcft_jax.training.base_model import hash_of, load_base, make_model, open_base
from dcft_jax.training.saved import check_origin, load_parts
from dcft_jax.training.workdir import kept_tokenizer


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model to be used under `jax.set_mesh(mesh)`."""

    model: ModelConfig
    params: Params  # all of them, adapters next to the kernels they adapt
    tokenizer: Tokenizer
    mesh: jax.sharding.Mesh
    step: int  # of the checkpoint
    config: Mapping[str, Any]  # of the run, plain
    base: Opened | None  # the model that the run started from


def load_trained(
    workdir: str | Path,
    checkpoint: str = "latest",
    devices: Sequence[Any] | None = None,
) -> Trained:
    """Reads the parameters, and nothing else of the training state.

    They are read straight into their shards. The mesh keeps the run's `mesh.model` if
    the devices here are a multiple of it, and is otherwise all `data`.

    Args:
      workdir: folder that training was started with.
      checkpoint: "latest", "best:<ability>" (by its mix-val loss) or a step.
      devices: what the mesh is made of; None: all of them.

    Raises:
      ValueError, OSError: the folder is no run, or has no such checkpoint.
    """
    folder = Path(workdir)
    field = f"--workdir {str(workdir)!r}"
    config = _read_config(folder, field)
    tokenizer = kept_tokenizer(folder)
    base = open_base(ConfigDict(config))
    model = make_model(config, tokenizer, base)
    mesh = _mesh(config["mesh"]["model"], devices)
    check_mesh(model, mesh)
    with ocp.training.Checkpointer(str(folder.absolute() / "checkpoints")) as saved:
        check_origin(saved, tokenizer.content_hash, hash_of(base), field)
        kept: dict[int, Any] = {one.step: one.metrics for one in saved.checkpoints}
        step = find_step(kept, checkpoint, list(config["abilities"]))
        wanted, _ = split(abstract_params(model, mesh))
        params = load_parts(saved, step, {"params": wanted})["params"]
    if base is not None and model.lora is not None:
        quantize = config["pretrained"]["quantize"]
        params = combine(load_base(base, model, mesh, quantize), params)
    return Trained(model, params, tokenizer, mesh, step, config, base)


def find_step(
    kept: Mapping[int, Mapping[str, float] | None],
    wanted: str,
    abilities: Sequence[str],
) -> int:
    """The step of the checkpoint that is called `wanted`; see `load_trained`.

    Args:
      kept: steps that have a checkpoint, and the mix-val losses where measured.

    Raises:
      ValueError: there is none; says which there are.
    """
    kind, _, ability = wanted.partition(":")
    if wanted == "latest":
        return max(kept)
    if kind == "best":
        return _best(kept, ability, abilities)
    if not wanted.isdigit():
        raise ValueError(
            f"--checkpoint {wanted!r}: must be latest, best:<ability> or a step"
        )
    if int(wanted) not in kept:
        raise ValueError(f"--checkpoint {wanted}: is not kept; there are {list(kept)}")
    return int(wanted)


def _best(
    kept: Mapping[int, Mapping[str, float] | None],
    ability: str,
    abilities: Sequence[str],
) -> int:
    if ability not in abilities:
        raise ValueError(
            f"--checkpoint best:{ability}: unknown ability; the run trains "
            f"{', '.join(abilities)}"
        )
    measured = {step: losses[ability] for step, losses in kept.items() if losses}
    if not measured:
        raise ValueError(
            f"--checkpoint best:{ability}: no checkpoint was saved at an evaluation; "
            f"name one of the steps {list(kept)}"
        )
    return min(measured, key=lambda step: measured[step])


def _read_config(folder: Path, field: str) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{field}: is no run, it has no config.json; name the folder that training "
            "was started with"
        )
    # Orbax would create the folder.
    if not (folder / "checkpoints").is_dir():
        raise ValueError(f"{field}: there is no checkpoint in it")
    return json.loads(path.read_text())


def _mesh(model: int, devices: Sequence[Any] | None) -> jax.sharding.Mesh:
    devices = jax.devices() if devices is None else devices
    fits = model > 0 and len(devices) % model == 0
    sizes = dict(ability=1, data=-1, model=model if fits else 1)
    return make_mesh(sizes, devices)
