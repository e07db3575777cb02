"""What users get wrong ends with a message that says how to go on."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.training import workdir
from dcft_jax.training.run import open_run

QUIET = Console(quiet=True)


def start(config: ConfigDict, folder: Path):
    return open_run(config, folder, QUIET, jax.devices()[:1])


def test_missing_file(tiny_config: ConfigDict, tmp_path: Path):
    tiny_config.abilities.code.sources.rows.path = str(tmp_path / "none.jsonl")
    with pytest.raises(
        FileNotFoundError, match=r"abilities\.code\.sources\.rows.*none"
    ):
        start(tiny_config, tmp_path / "run")


def write(tiny_config: ConfigDict, tmp_path: Path, ability: str, text: str) -> None:
    path = tmp_path / f"{ability}.jsonl"
    path.write_text(text)
    tiny_config.abilities[ability].sources.rows.path = str(path)


def good_rows(number: int) -> str:
    return "".join(
        f'{{"prompt": "say {i}", "response": "{i}"}}\n' for i in range(number)
    )


def test_malformed_row_fails_with_file_and_line(tiny_config, tmp_path):
    write(tiny_config, tmp_path, "maths", good_rows(100) + '{"prompt": "x", \n')
    with pytest.raises(ValueError, match=r"maths\.jsonl:101: .*on_bad_row"):
        start(tiny_config, tmp_path / "run")


def test_malformed_and_unanswered_rows_are_skipped_and_counted(tiny_config, tmp_path):
    bad = '{"prompt": "x", \n{"prompt": "no answer", "response": ""}\n'
    write(tiny_config, tmp_path, "maths", bad + good_rows(200))
    tiny_config.data.on_bad_row = "skip"
    run = start(tiny_config, tmp_path / "run")
    assert run.data.reports["maths"].skipped == {"rows": 2}


def test_empty_source(tiny_config: ConfigDict, tmp_path: Path):
    write(tiny_config, tmp_path, "general", "")
    with pytest.raises(ValueError, match=r"abilities\.general.*empty|no row"):
        start(tiny_config, tmp_path / "run")


def test_ability_too_small_to_hold_anything_out(tiny_config, tmp_path):
    write(tiny_config, tmp_path, "maths", good_rows(30))
    with pytest.raises(ValueError, match=r"abilities\.maths.*(test|mix_val)"):
        start(tiny_config, tmp_path / "run")


def test_too_many_truncated_examples(tiny_config: ConfigDict, tmp_path: Path):
    tiny_config.data.seq_len = 12
    with pytest.raises(ValueError, match=r"data\.max_truncated_share"):
        start(tiny_config, tmp_path / "run")


def test_batch_that_the_mesh_does_not_divide(tiny_config: ConfigDict, tmp_path: Path):
    tiny_config.mesh.update(slice=2, ability=1, data=4, model=1)
    rows = r"rows_per_slot.* = 2: .*mesh\.slice \* mesh\.data = 8"
    with pytest.raises(ValueError, match=rows):
        open_run(tiny_config, tmp_path / "run", QUIET)
    tiny_config.mesh.update(slice=1, ability=8, data=1, model=1)
    with pytest.raises(ValueError, match=r"num_slots = 4: .*mesh\.ability = 8"):
        open_run(tiny_config, tmp_path / "run", QUIET)


def test_mesh_that_the_devices_do_not_fill(tiny_config: ConfigDict, tmp_path: Path):
    tiny_config.mesh.update(ability=3, data=-1, model=1)
    with pytest.raises(ValueError, match=r"mesh\.ability=3.*8 devices"):
        open_run(tiny_config, tmp_path / "run", QUIET)


def test_workdir_of_another_config_is_refused(tiny_config, tmp_path):
    start(tiny_config, tmp_path / "run")
    tiny_config.run.seed = 7
    with pytest.raises(ValueError, match=r"another config:\n  run\.seed: 0 -> 7"):
        start(tiny_config, tmp_path / "run")


def test_data_that_changed_since_the_run_began(tiny_config, tmp_path, task_files):
    shutil.copy(task_files["maths"], tmp_path / "maths.jsonl")
    tiny_config.abilities.maths.sources.rows.path = str(tmp_path / "maths.jsonl")
    start(tiny_config, tmp_path / "run")
    with open(tmp_path / "maths.jsonl", "a") as file:
        file.write(good_rows(50))
    with pytest.raises(ValueError, match="data of this run have changed"):
        start(tiny_config, tmp_path / "run")


def test_a_bucket_is_no_folder(tiny_config: ConfigDict, tmp_path: Path, monkeypatch):
    """As a path it would be a folder of this machine, and lost with it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"--workdir gs://b/run: must be a folder"):
        start(tiny_config, "gs://b/run")
    assert not (tmp_path / "gs:").exists()


def test_unwritable_workdir(tiny_config: ConfigDict, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"--workdir .*file/run: cannot be written"):
        start(tiny_config, tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_workdir(tiny_config: ConfigDict, tmp_path: Path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(OSError, match="cannot be written"):
        start(tiny_config, tmp_path / "run")


def test_full_disk(tiny_config: ConfigDict, tmp_path: Path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        workdir.shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 100, 100)
    )
    with pytest.raises(OSError, match=r"GiB are free.*keep_checkpoints"):
        start(tiny_config, tmp_path / "run")
