"""LoRA adapters in the files of PEFT, out and in.

Names, shapes and keys are those of `peft` 0.21: for a projection `weight` [out, in],
`lora_A` is [r, in] and `lora_B` [out, r], and the update is
`lora_alpha / r x lora_B lora_A`, or `/ sqrt(r)` with `use_rslora`.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dcft_jax.models.config import ModelConfig
from dcft_jax.models.decoder import Params
from dcft_jax.models.lora import DOWN, UP, LoRA
from dcft_jax.models.pretrained import layout
from dcft_jax.models.pretrained.tensors import Entry, hf_tensors
from dcft_jax.sharding import on_host

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MODULES = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
# Where transformers 5 keeps the decoder of a model that also sees images.
MULTIMODAL = "model.language_model."


def save_adapters(
    config: ModelConfig,
    params: Params,
    folder: str | Path,
    *,
    base: str,
    revision: str | None = None,
    multimodal: bool = False,
) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, which comes last.

    With several processes all call it, and the first writes.

    Args:
      config: with `lora`.
      params: the adapters, or all parameters, of which the others are left alone.
      base: `base_model_name_or_path`, which PEFT loads the base from.
      revision: of the base on the hub.
      multimodal: the base is a Gemma 3 with a vision tower.

    Raises:
      ValueError: if the decoder has no adapters, or the parameters lack some.
    """
    lora, folder, arrays = _lora(config), Path(folder), {}
    sizes = _sizes(config, lora)
    for entry in _entries(config, lora, multimodal):
        stack = _find(params, entry.leaf)
        wanted = (config.num_layers, *layout.leaf_shape(entry.equation, sizes))
        if getattr(stack, "shape", None) != wanted:
            raise ValueError(
                f"params[{entry.leaf!r}] has shape {getattr(stack, 'shape', None)}, "
                f"the config needs {wanted} (None: no such array)"
            )
        for layer, part in enumerate(on_host(stack)):
            tensor = layout.to_file(entry.equation, sizes, part)
            arrays[entry.name.format(layer=layer)] = np.ascontiguousarray(tensor)
    if jax.process_index() != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / WEIGHTS, metadata={"format": "pt"})
    settings = _settings(lora, multimodal) | {
        "base_model_name_or_path": base,
        "revision": revision,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")


def load_adapters(
    config: ModelConfig, folder: str | Path, multimodal: bool = False
) -> tuple[LoRA, Params]:
    """What `save_adapters` wrote: the settings, and the adapters without the rest.

    Args:
      config: of the base; its `lora` does not count.
      multimodal: see `save_adapters`.

    Raises:
      ValueError: if the files are no LoRA adapters of this decoder; names the file and
        the key or tensor.
    """
    folder = Path(folder)
    lora = _read_settings(folder / CONFIG)
    try:
        arrays = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS}: {error}") from error
    params: Params = {}
    for entry in _entries(config, lora, multimodal):
        names = [entry.name.format(layer=n) for n in range(config.num_layers)]
        leaf = _stack(folder, arrays, names, entry.equation, _sizes(config, lora))
        *path, last = entry.leaf.split("/")
        place = params
        for key in path:
            place = place.setdefault(key, {})
        place[last] = leaf
    if arrays:
        raise ValueError(f"{folder / WEIGHTS}: unexpected tensors {sorted(arrays)[:5]}")
    return lora, params


def _stack(
    folder: Path,
    arrays: dict[str, np.ndarray],
    names: list[str],
    equation: str,
    sizes: Mapping[str, int],
) -> np.ndarray:
    """Takes one tensor per layer out of `arrays`, as one leaf."""
    wanted, layers = layout.file_shape(equation, sizes), []
    everything = (slice(None),) * len(layout.leaf_shape(equation, sizes))
    for name in names:
        if name not in arrays or arrays[name].shape != wanted:
            found = arrays[name].shape if name in arrays else "missing"
            raise ValueError(
                f"{folder / WEIGHTS}: tensor {name!r} is {found}, expected {wanted}"
            )
        part = arrays.pop(name)
        layers.append(layout.to_leaf(equation, sizes, part, everything))
    return np.stack(layers)


def _lora(config: ModelConfig) -> LoRA:
    if config.lora is None:
        raise ValueError("config.lora.rank=0: the model has no adapters")
    return config.lora


def _entries(config: ModelConfig, lora: LoRA, multimodal: bool) -> Iterator[Entry]:
    """A and B of every target, from the equations of the kernels that they adapt."""
    plain = dataclasses.replace(config, lora=None)
    for entry in hf_tensors(plain, MULTIMODAL if multimodal else "model."):
        leaf, _, kind = entry.leaf.rpartition("/")
        if kind != "kernel" or leaf.rpartition("/")[2] not in lora.targets:
            continue
        name = "base_model.model." + entry.name.removesuffix(".weight")
        outputs, inputs = entry.equation.partition("->")[0].split(",")
        down = f"r,{inputs}->{','.join(inputs)},r"
        up = f"{outputs},r->r,{','.join(outputs)}"
        yield Entry(f"{leaf}/{DOWN}", f"{name}.lora_A.weight", down)
        yield Entry(f"{leaf}/{UP}", f"{name}.lora_B.weight", up)


def _sizes(config: ModelConfig, lora: LoRA) -> dict[str, int]:
    return layout.axis_sizes(config) | {"r": lora.rank}


def _find(params: Any, leaf: str) -> Any:
    for key in leaf.split("/"):
        params = params.get(key, {})
    return params


def _settings(lora: LoRA, multimodal: bool) -> dict[str, Any]:
    modules = [MODULES[target] for target in lora.targets]
    alpha = lora.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "use_rslora": lora.rank_stabilised,
        # A list would match the vision tower, too.
        "target_modules": _pattern(modules) if multimodal else modules,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }


def _pattern(modules: list[str]) -> str:
    return rf".*language_model.*\.({'|'.join(modules)})"


def _read_settings(path: Path) -> LoRA:
    raw = json.loads(path.read_text())
    if raw.get("peft_type") != "LORA":
        raise ValueError(f"{path}: peft_type={raw.get('peft_type')!r} is not 'LORA'")
    targets = raw["target_modules"]
    if isinstance(targets, str):
        targets = targets.rpartition("(")[2].rstrip(")").split("|")
    target_of = {module: target for target, module in MODULES.items()}
    unknown = [name for name in targets if name not in target_of]
    if unknown:
        raise ValueError(f"{path}: target_modules has {unknown}; known: {[*target_of]}")
    return LoRA(
        rank=raw["r"],
        alpha=raw["lora_alpha"],
        targets=tuple(target_of[name] for name in targets),
        rank_stabilised=raw["use_rslora"],
    )
