import errno
import importlib.util
import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from tensorboardX.proto import event_pb2

from dcft_jax.reporting import jsonl, open_writers
from dcft_jax.reporting.tensorboard import TensorboardWriter
from dcft_jax.reporting.writers import WandbWriter


def logging(tensorboard: bool = False, wandb_project: str = "") -> ConfigDict:
    return ConfigDict(
        {
            "tensorboard": tensorboard,
            "wandb_project": wandb_project,
            "wandb_mode": "offline",
        }
    )


def open_files(workdir: Path, resume_step: int | None = None):
    return open_writers(workdir, logging(), resume_step, {})


def rows_of(workdir: Path) -> list[dict]:
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def test_every_write_is_one_flushed_strict_row(tmp_path: Path):
    writer = open_files(tmp_path)
    writer.write(0, {"mix_val/loss/a": 2.5, "train/loss/a": float("nan")})
    writer.write(3, {"train/loss/a": float("inf")})
    first, second = rows_of(tmp_path)  # before close: a kill must not lose rows
    assert first["mix_val/loss/a"] == 2.5 and first["train/loss/a"] is None
    assert second["step"] == 3 and second["train/loss/a"] is None
    assert 0 <= first["wall_s"] <= second["wall_s"]
    writer.close()


def test_steps_must_not_go_back(tmp_path: Path):
    writer = open_files(tmp_path)
    writer.write(5, {"x": 1.0})
    with pytest.raises(ValueError, match="step 4 come after those of step 5"):
        writer.write(4, {"x": 1.0})
    with pytest.raises(ValueError, match="step 5 is recorded twice: x"):
        writer.write(5, {"x": 1.0, "y": 2.0})
    writer.write(5, {"y": 2.0})
    writer.close()
    assert [row["step"] for row in rows_of(tmp_path)] == [5, 5]


def write_steps(writer, first: int, stop: int, resumed: bool = False) -> None:
    """What a loop writes: an evaluation before steps 0, 3, 6, ..., then the step.

    Checkpoints follow evaluations, so a resumed loop does not repeat the first one.
    """
    for step in range(first, stop):
        if step % 3 == 0 and not (resumed and step == first):
            writer.write(step, {"mix_val/loss/a": step + 0.5})
        writer.write(step, {"train/loss/a": float(step)})


def without_time(workdir: Path) -> list[dict]:
    rows = rows_of(workdir)
    return [{k: v for k, v in row.items() if k != "wall_s"} for row in rows]


@settings(deadline=None, max_examples=30)
@given(crash=st.integers(1, 12), checkpoint=st.integers(0, 3), torn=st.integers(0, 40))
def test_a_resumed_record_equals_one_that_never_stopped(
    tmp_path_factory: pytest.TempPathFactory, crash: int, checkpoint: int, torn: int
):
    straight, broken = (tmp_path_factory.mktemp(name) for name in ("a", "b"))
    writer = open_files(straight)
    write_steps(writer, 0, 14)
    writer.close()
    writer = open_files(broken)
    write_steps(writer, 0, crash)
    row = json.dumps({"step": crash, "wall_s": 1.0, "train/loss/a": 1.0})
    with (broken / "metrics.jsonl").open("a") as file:
        file.write(row[: min(torn, len(row) - 1)])
    resume_step = min(3 * checkpoint, (crash - 1) // 3 * 3)
    writer = open_files(broken, resume_step)
    write_steps(writer, resume_step, 14, resumed=True)
    writer.close()
    assert without_time(broken) == without_time(straight)


def test_resume_keeps_the_first_record_of_its_step_and_continues_the_clock(
    tmp_path: Path,
):
    rows = [
        {"step": 2, "wall_s": 100.0, "mix_val/loss/a": 1.0},
        {"step": 2, "wall_s": 101.0, "train/loss/a": 2.0},
        {"step": 3, "wall_s": 102.0, "train/loss/a": 3.0},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(lines)
    writer = open_files(tmp_path, resume_step=2)
    writer.write(2, {"train/loss/a": 2.1, "train/grad_norm": 1.0})
    writer.write(3, {"train/loss/a": 3.0})
    writer.close()
    kept = rows_of(tmp_path)
    assert kept[:2] == rows[:2]
    assert without_time(tmp_path)[2] == {"step": 2, "train/grad_norm": 1.0}
    assert 101.0 <= kept[2]["wall_s"] <= kept[3]["wall_s"] < 130.0
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*"))


def test_a_fresh_start_drops_an_earlier_record(tmp_path: Path):
    writer = open_files(tmp_path)
    write_steps(writer, 0, 3)
    writer.close()
    open_files(tmp_path, resume_step=None).close()
    assert rows_of(tmp_path) == []


def test_only_the_last_line_may_be_broken(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\n{"step": 1, "tr\xff')
    assert jsonl.read_rows(path) == [{"step": 0}]
    path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2 is no row"):
        open_files(tmp_path, resume_step=2)


def read_events(folder: Path) -> list:
    """TFRecord framing: length, its checksum, the event, its checksum."""
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event()  # pyright: ignore[reportAttributeAccessIssue]
            event.ParseFromString(data[12 : 12 + length])
            events.append(event)
            data = data[16 + length :]
    return events


def test_tensorboard_gets_scalars_and_purges_what_is_redone(tmp_path: Path):
    writer = open_writers(tmp_path, logging(tensorboard=True), None, {})
    writer.write(4, {"train/loss/a": 1.5, "train/loss/b": float("nan")})
    writer.close()
    writer = open_writers(tmp_path, logging(tensorboard=True), 3, {})
    writer.write(4, {"train/loss/a": 1.5})
    writer.close()
    events = read_events(tmp_path / "tensorboard")
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert scalars == [(4, "train/loss/a", 1.5)] * 2
    starts = [e.step for e in events if e.HasField("session_log")]
    assert starts == [0, 4]


def test_tensorboard_does_not_stop_a_run_on_a_full_disk(tmp_path: Path):
    writer = TensorboardWriter(tmp_path)
    disk = writer._file._file

    def no_space(data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no more")

    writer._file._file = SimpleNamespace(write=no_space)  # type: ignore[assignment]
    for step in range(30):  # more than any queue holds
        writer.write(step, {"x": 1.0})
    writer._file._file = disk
    writer.close()
    steps = [e.step for e in read_events(tmp_path) if e.summary.value]
    assert steps == list(range(30))


needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed"
)


@needs_wandb
@pytest.mark.slow
def test_wandb_offline_goes_on_in_the_same_run(tmp_path: Path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    for resume_step in (None, 1):
        writer = open_writers(tmp_path, logging(wandb_project="p"), resume_step, {})
        writer.write(2, {"train/loss/a": 0.25, "train/loss/b": float("nan")})
        writer.close()
    # Its service writes the end of a run after the run was closed.
    wandb.teardown()
    run_id = (tmp_path / "wandb_run_id.txt").read_text().strip()
    records = list(tmp_path.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))
    assert records and len(records) == len(list(tmp_path.glob("wandb/offline-run-*")))
    assert all(b"train/loss/a" in path.read_bytes() for path in records)
    assert not any(b"train/loss/b" in path.read_bytes() for path in records)


@needs_wandb
def test_wandb_is_not_sent_what_it_has(tmp_path: Path, monkeypatch):
    sent, opened = [], {}
    run = SimpleNamespace(step=5, log=lambda row, step: sent.append((step, row)))
    monkeypatch.setattr("wandb.init", lambda **options: opened.update(options) or run)
    (tmp_path / "wandb_run_id.txt").write_text("abc123\n")
    writer = WandbWriter(tmp_path, logging(wandb_project="p"), 3, {"seed": 1})
    for step in (3, 4, 5):
        writer.write(step, {"x": 1.0})
    assert sent == [(5, {"x": 1.0})]
    assert opened["id"] == "abc123" and opened["config"] == {"seed": 1}


def test_a_missing_wandb_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    workdir = tmp_path / "run"
    with pytest.raises(ImportError, match="pip install wandb"):
        open_writers(workdir, logging(wandb_project="p"), None, {})
    assert not workdir.exists()


def test_an_unknown_wandb_mode_is_refused(tmp_path: Path):
    config = logging(wandb_project="p")
    config.wandb_mode = "on"
    with pytest.raises(ValueError, match="wandb_mode is 'on'"):
        open_writers(tmp_path, config, None, {})
