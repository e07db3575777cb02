"""The model of a run as files for other programs, checked before they are kept."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from dcft_jax import distributed
from dcft_jax.data import Tokenizer, load_chat_tokenizer
from dcft_jax.data.atomic_write import atomic_folder
from dcft_jax.data.sentencepiece_export import to_huggingface
from dcft_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from dcft_jax.models import (
    ModelConfig,
    Params,
    combine,
    config_of,
    load_pretrained,
    merge,
    save_pretrained,
    split,
)
from dcft_jax.models.config import DTYPES
from dcft_jax.models.pretrained.families import DEFAULTS
from dcft_jax.models.pretrained.origin import Origin, origin_of
from dcft_jax.models.pretrained.peft import load_adapters, save_adapters
from dcft_jax.training.divergence import (
    CONVERSATIONS,
    check_rows,
    divergence,
    predictions,
    require_close,
    require_same,
)
from dcft_jax.training.model_card import Exported, write_card
from dcft_jax.training.trained import Trained, load_trained

# Tokenizer, settings and card.
SMALL_FILES = 64 * 2**20


def export_run(
    workdir: str | Path,
    to: str | Path,
    *,
    checkpoint: str = "latest",
    adapters: bool = False,
    dtype: str = "",
    max_shard_size: int = 5_000_000_000,
    command: str = "",
) -> Exported:
    """Writes `to` as a whole, or not at all. All processes call it.

    Weights, config.json, tokenizer with chat template, generation_config.json and a
    model card go into a folder beside `to`. Then they are read back: parameters and
    tokens must be the same, and predictions close to those of the run (divergence.py).
    Only then the folder gets its name.

    Args:
      workdir: folder that training was started with.
      to: must not exist, or be empty.
      checkpoint: see `load_trained`.
      adapters: LoRA adapters alone, in the files of PEFT, instead of merged weights.
      dtype: of the weights; "": that of the base, float32 without one; of adapters
        that of training.
      max_shard_size: see `save_pretrained`.
      command: for the card.

    Raises:
      ValueError, OSError: the folder is no run, has no such checkpoint or no adapters;
        there is no room; or what was written is not the model.
    """
    to = Path(to)
    _check_options(to, dtype, max_shard_size)
    trained = load_trained(workdir, checkpoint)
    if adapters and trained.model.lora is None:
        raise ValueError(
            "--adapters: the run trained all parameters (config.lora.rank=0); leave "
            "it out to export those"
        )
    with jax.set_mesh(trained.mesh), _whole_folder(to) as folder:
        exported = _write(trained, folder, adapters, dtype, max_shard_size, to)
        if distributed.is_first():
            write_card(folder, Path(workdir), trained, exported, command)
            _open_to_all(folder)
    return exported


@contextlib.contextmanager
def _whole_folder(to: Path) -> Iterator[Path]:
    """`atomic_folder` of the first process, for all to read and for it to write."""
    with contextlib.ExitStack() as stack:
        name = ""
        if distributed.is_first():
            name = str(stack.enter_context(atomic_folder(to)))
        yield Path(distributed.words_of_all(name)[0])
        distributed.meet()  # nobody reads it any more
    distributed.meet()  # it has its name


def _write(
    trained: Trained,
    folder: Path,
    adapters: bool,
    dtype: str,
    max_shard_size: int,
    to: Path,
) -> Exported:
    tokenizer = _portable(trained.tokenizer, str(to))
    dtype = dtype or _dtype(trained, adapters)
    tokens_BL, known_BL = check_rows(trained.tokenizer, trained.model)
    meant_BLV = predictions(trained.model, trained.params, tokens_BL)
    origin = None
    if trained.base is not None:
        name = trained.config["pretrained"]["path"]
        origin = origin_of(name, trained.base.source)
    if adapters:
        model, params = _adapters(trained, folder, dtype, origin, to)
    else:
        model, params = _merged(trained, folder, dtype, max_shard_size, to)
    if distributed.is_first():
        tokenizer.save(folder)
    distributed.meet()
    _check_tokenizer(trained.tokenizer, folder)
    found = divergence(meant_BLV, predictions(model, params, tokens_BL), known_BL)
    require_close(found, dtype, str(to))
    return Exported(trained.step, dtype, adapters, origin, found)


def _merged(
    trained: Trained, folder: Path, dtype: str, max_shard_size: int, to: Path
) -> tuple[ModelConfig, Params]:
    """Writes all weights; what was read back."""
    model = dataclasses.replace(trained.model, lora=None, param_dtype=dtype)
    params = trained.params
    if trained.model.lora is not None:
        params = merge(trained.model.lora, params, dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    _check_space(folder, params, to)
    save_pretrained(
        model,
        params,
        folder,
        max_length=_max_length(trained),
        max_shard_size=max_shard_size,
        extra=_token_ids(trained.tokenizer),
    )
    distributed.meet()
    written = load_pretrained(
        folder, trained.mesh, model.rules, compute_dtype=model.compute_dtype
    )
    require_same(params, written.params, str(to))
    return written.config, written.params


def _adapters(
    trained: Trained, folder: Path, dtype: str, origin: Origin | None, to: Path
) -> tuple[ModelConfig, Params]:
    """Writes the adapters; the base with those that were read back."""
    base = trained.base
    if base is None or origin is None:
        raise ValueError("--adapters: the run has no base that they could adapt")
    tensors = base.checkpoint.tensors
    of_gguf = base.path.suffix == ".gguf"
    multimodal = not of_gguf and "model.embed_tokens.weight" not in tensors
    params, frozen = split(trained.params)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    _check_space(folder, params, to)
    save_adapters(
        trained.model,
        params,
        folder,
        base=origin.name,
        revision=origin.revision,
        multimodal=multimodal,
    )
    distributed.meet()
    lora, written = load_adapters(trained.model, folder, multimodal)
    written = jax.tree.map(_placed_like, written, params)
    require_same(params, written, str(to))
    model = dataclasses.replace(trained.model, lora=lora)
    return model, combine(frozen, written)


def _placed_like(leaf: Any, like: jax.Array) -> jax.Array:
    return jax.device_put(leaf, like.sharding)


def _dtype(trained: Trained, adapters: bool) -> str:
    if adapters:
        return "float32"  # that of adapters in training
    base = trained.base
    return config_of(base.settings).param_dtype if base else "float32"


def _max_length(trained: Trained) -> int:
    """Positions that the base is meant for, or the length of the rows it has seen."""
    if trained.base is None:
        return trained.config["data"]["seq_len"]
    raw = trained.base.settings.raw
    key = "max_position_embeddings"
    return raw.get(key, DEFAULTS[raw["model_type"]][key])


def _token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(tokenizer.chat.stop_ids),
        "pad_token_id": tokenizer.pad_id,
    }


def _portable(tokenizer: Tokenizer, name: str) -> Tokenizer:
    if isinstance(tokenizer, SentencePieceTokenizer):
        return to_huggingface(tokenizer, name)
    return tokenizer


def _check_tokenizer(ours: Tokenizer, folder: Path) -> None:
    """Raises ValueError unless the tokenizer in the folder gives the same tokens."""
    written = load_chat_tokenizer(folder)
    for conversation in CONVERSATIONS:
        for one, other in zip(
            ours.chat.encode(conversation),
            written.chat.encode(conversation),
            strict=True,
        ):
            if one.tolist() != other.tolist():
                raise ValueError(
                    f"the tokenizer that was written gives {other.tolist()} for "
                    f"{conversation}, that of the run {one.tolist()}"
                )
    if written.chat.stop_ids != ours.chat.stop_ids:
        raise ValueError(
            f"the tokenizer that was written stops at {written.chat.stop_ids}, that "
            f"of the run at {ours.chat.stop_ids}"
        )


def _check_options(to: Path, dtype: str, max_shard_size: int) -> None:
    if dtype and dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype!r}: must be one of {DTYPES}")
    if max_shard_size < 1:
        raise ValueError(f"--max_shard_size {max_shard_size}: must be at least 1 byte")
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise FileExistsError(f"--to {str(to)!r}: is there already; name a new folder")


def _check_space(folder: Path, params: Params, to: Path) -> None:
    needed = SMALL_FILES + sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"--to {str(to)!r}: {free / 2**30:.2f} GiB are free, but "
            f"{needed / 2**30:.2f} GiB are needed; free some space, or name another "
            "folder"
        )


def _open_to_all(folder: Path) -> None:
    """As the umask says: safetensors lets nobody but the owner read its files."""
    for path in folder.iterdir():
        path.chmod(folder.stat().st_mode & 0o666)
