"""The folder of one run: who may use it, and whether it can hold the run."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcft_jax.config import difference
from dcft_jax.data import Tokenizer, load_chat_tokenizer
from dcft_jax.data.atomic_write import atomic_folder, atomic_write
from dcft_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from dcft_jax.training.exclusive import held


def open_workdir(path: str | os.PathLike, config: Mapping[str, Any]) -> Path:
    """Creates the folder, or opens the one of the same run.

    Args:
      config: the plain config; it is kept as `config.json`.

    Raises:
      OSError: the folder cannot be created or written, or (InUseError) another
        process trains in it.
      ValueError: it belongs to a run with another config; the message shows
        the difference. Or it is the address of a bucket.
    """
    if "://" in os.fspath(path):
        raise ValueError(
            f"--workdir {path}: must be a folder; mount the bucket, for one with Cloud "
            "Storage FUSE, and name the folder that it is mounted at"
        )
    workdir = Path(path)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as probe:
            probe.write(b"dcft")
    except OSError as error:
        raise OSError(
            f"--workdir {workdir}: cannot be written ({error.strerror}); "
            "free some space or name another folder"
        ) from error
    known = workdir / "config.json"
    if known.exists():
        lines = difference(json.loads(known.read_text()), config)
        if lines:
            raise ValueError(
                f"--workdir {workdir} belongs to a run with another config:\n  "
                + "\n  ".join(lines)
                + "\nName another folder, or delete this one to start over."
            )
    with held(workdir):  # known before the data are prepared; `train` holds it
        write_json(known, config)
    return workdir


def check_data(workdir: Path, content_hash: str, sizes: Mapping[str, Any]) -> None:
    """Refuses to go on with other data than the run began with; keeps what they are as
    `data.json`.

    Args:
      content_hash: of all rows.
      sizes: of the data; see `run.data_sizes`.

    Raises:
      ValueError: a resumed stream would repeat and skip rows unnoticed.
    """
    _check_unchanged(
        workdir,
        "data.json",
        {"content_hash": content_hash, "abilities": sizes},
        "the data of this run have changed since it began: a source, or the version of "
        "a package that brings one",
    )


def check_base(workdir: Path, content_hash: str) -> None:
    """Refuses to go on with another base model than the run began with.

    Args:
      content_hash: of its weights.

    Raises:
      ValueError: adapters on other weights are another model.
    """
    _check_unchanged(
        workdir,
        "base.json",
        {"content_hash": content_hash},
        "the weights that config.pretrained.path names have changed since this run "
        "began",
    )


def _check_unchanged(
    workdir: Path, file: str, content: Mapping[str, Any], what: str
) -> None:
    known, now = workdir / file, content["content_hash"]
    if known.exists():
        before = json.loads(known.read_text())["content_hash"]
        if before != now:
            raise ValueError(
                f"--workdir {workdir}: {what} (content hash {before} -> {now}). "
                "Restore them, or name another folder."
            )
    write_json(known, content)


def keep_tokenizer(workdir: Path, tokenizer: Tokenizer) -> None:
    """Writes the tokenizer, for generation, export and runs that go on from this one:
    tokenizer.model of a SentencePiece tokenizer, otherwise the folder tokenizer/.
    """
    if _tokenizer_paths(workdir):
        return
    if isinstance(tokenizer, SentencePieceTokenizer):
        tokenizer.save(workdir)  # one file
        return
    with atomic_folder(workdir / "tokenizer") as folder:
        tokenizer.save(folder)


def kept_tokenizer(workdir: Path) -> Tokenizer:
    """What `keep_tokenizer` wrote.

    Raises:
      FileNotFoundError: this is no workdir of a run that has begun.
    """
    paths = _tokenizer_paths(workdir)
    if not paths:
        raise FileNotFoundError(
            f"--workdir {workdir}: there is no tokenizer in it; name the folder of a "
            "run that has begun"
        )
    return load_chat_tokenizer(paths[0])


def _tokenizer_paths(workdir: Path) -> list[Path]:
    files = (workdir / "tokenizer.model", workdir / "tokenizer" / "tokenizer.json")
    return [path for path in files if path.is_file()]


def check_space(workdir: Path, state_bytes: int, keep: int) -> None:
    """Refuses to start a run whose checkpoints will not fit on the disk.

    Raises:
      OSError: names the folder, what is free and what is needed.
    """
    # One more than is kept: the new one is whole before the oldest goes.
    needed, free = state_bytes * (keep + 1), shutil.disk_usage(workdir).free
    if free < needed:
        raise OSError(
            f"--workdir {workdir}: {free / 2**30:.2f} GiB are free, but "
            f"{keep} + 1 checkpoints need {needed / 2**30:.2f} GiB; free some "
            "space, lower run.keep_checkpoints, turn run.keep_best off, or name "
            "another folder"
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Atomic: readers and crashes see the old file or the new one."""
    atomic_write(path, json.dumps(content, indent=2) + "\n")
