"""Runs on tokenizers of other people, and what a workdir keeps."""

import errno
import io
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from dcft_jax.data import hf_tokenizer, load_chat_tokenizer, train_tokenizer
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.training.run import open_run
from dcft_jax.training.workdir import keep_tokenizer, kept_tokenizer
from tests.conftest import make_tiny_config
from tests.data.chat_families import BY_NAME, write_family


def test_kept_tokenizers_come_back(tmp_path: Path):
    ours = train_tokenizer(["What is it?"] * 4, 275, tmp_path / "t.model")
    theirs = load_chat_tokenizer(write_family(BY_NAME["gemma2"], tmp_path / "m"))
    for name, tokenizer in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        with pytest.raises(FileNotFoundError, match="there is no tokenizer in it"):
            kept_tokenizer(tmp_path / name)
        for _ in range(2):
            keep_tokenizer(tmp_path / name, tokenizer)
            assert kept_tokenizer(tmp_path / name) == tokenizer
    assert (tmp_path / "ours" / "tokenizer.model").is_file()
    assert (tmp_path / "theirs" / "tokenizer" / "chat_template.jinja").is_file()


def test_half_a_tokenizer_is_none(tmp_path: Path, monkeypatch):
    tokenizer = load_chat_tokenizer(write_family(BY_NAME["gemma2"], tmp_path / "m"))

    def no_space(path: Path, content: str) -> None:
        if path.name == "chat_template.jinja":
            raise OSError(errno.ENOSPC, "No space left on device")
        atomic_write(path, content)

    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(hf_tokenizer, "atomic_write", no_space)
        keep_tokenizer(tmp_path / "run", tokenizer)
    assert not list((tmp_path / "run").iterdir())
    keep_tokenizer(tmp_path / "run", tokenizer)
    assert kept_tokenizer(tmp_path / "run") == tokenizer


def test_a_run_on_a_huggingface_tokenizer(task_files: dict[str, Path], tmp_path: Path):
    folder = write_family(BY_NAME["llama3"], tmp_path / "model")
    config = make_tiny_config(task_files, tmp_path / "cache")
    config.tokenizer.path = str(folder)
    config.data.seq_len = 128
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    run = open_run(config, tmp_path / "run", console, jax.devices()[:1])
    tokenizer = load_chat_tokenizer(folder)
    assert run.data.tokenizer == tokenizer == kept_tokenizer(run.workdir)
    assert "<|eot_id|>⟧" in shown.getvalue()
    for tiers in run.data.tiers.values():
        rows = tiers.train[0]
        trained = rows.tokens_NL[rows.loss_mask_NL]
        control = {int(t) for t in np.unique(trained) if tokenizer.is_control(int(t))}
        assert control == {tokenizer.chat.end_id}
        assert (trained == tokenizer.chat.end_id).sum() == rows.num_examples
