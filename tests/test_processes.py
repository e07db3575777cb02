"""Runs of several processes on this machine are the same as runs of one."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from dcft_jax import distributed
from dcft_jax.config import from_plain, to_plain
from dcft_jax.evaluate import main as evaluate_main
from dcft_jax.export import main as export_main
from dcft_jax.generate import main as generate_main
from dcft_jax.training import recovery
from dcft_jax.training.loop import train
from dcft_jax.training.run import Run, open_run
from tests.conftest import make_tiny_config
from tests.processes import TRAIN, log_of, start, wait
from tests.training.test_kills import CONFIG_FILE
from tests.training.test_resume import QUIET, cut_at, records

TIMEOUT_S = 400.0  # of a run; all tests share the processors
FULL_DISK_RUN = Path(__file__).with_name("full_disk_run.py")
# Process 3 cannot write what it has of the first checkpoint; process 0 not what makes
# the last one whole.
LAST_HAS_NO_SPACE = ("3", r"checkpoints/0\..*array_metadatas")
FIRST_HAS_NO_SPACE = ("0", r"checkpoints/6\..*metrics")
NO_SPACE = "warning: no space left in"


@dataclasses.dataclass(frozen=True)
class Runs:
    """One run by one process with four devices, and by four with one each."""

    one: Run
    four: Path
    config_file: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]) -> Runs:
    folder = tmp_path_factory.mktemp("processes")
    config = make_config(task_files, folder / "cache")
    file = folder / "config.py"
    file.write_text(CONFIG_FILE.format(text=json.dumps(to_plain(config))))
    four = folder / "four"
    processes = start(four, 4, train_command(file, four, full=LAST_HAS_NO_SPACE))
    assert wait(processes, TIMEOUT_S) == [0] * 4, log_of(four, 0).read_text()
    one = open_run(config, folder / "one", QUIET, jax.devices()[:4])
    train(one)
    return Runs(one, four, file)


def train_command(
    config_file: Path, workdir: Path, full: Sequence[str] = ()
) -> tuple[str, ...]:
    """`full`: files of a process that have no space, for full_disk_run.py."""
    program = (str(FULL_DISK_RUN), *full) if full else TRAIN
    return (*program, f"--config={config_file}", f"--workdir={workdir}")


def make_config(task_files: dict[str, Path], cache_dir: Path) -> ConfigDict:
    config = make_tiny_config(task_files, cache_dir)
    # Every process compiles, and all share two cores.
    del config.abilities["general"]
    config.model.update(num_layers=1, width=16, hidden=16)
    config.tokenizer.vocab_size = 300
    config.run.update(save_every=3, log_every=1)
    # Devices of a process lie along both axes that split a batch, if it has two.
    config.mesh.update(ability=2, data=-1)
    # A pass over rows for the mixture.
    signals = config.mixture.options.mirror_descent.signals
    signals.gradient_alignment = 1.0
    return config


def assert_close(found: list[dict], expected: list[dict]) -> None:
    """Rows of metrics.jsonl; what counts tokens, rows or slots is exact."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            counted = ("train/tokens", "train/response_tokens", "mixture/slots")
            tolerance = 0.0 if name.startswith(counted) else 1e-4
            np.testing.assert_allclose(
                np.array(a[name], float),
                np.array(value, float),
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{name} at step {b['step']}",
            )


@pytest.mark.slow
def test_four_processes_train_as_one(runs: Runs):
    assert_close(records(runs.four), records(runs.one.workdir))


@pytest.mark.slow
def test_only_the_first_process_writes_and_speaks(runs: Runs):
    assert "train loss" in log_of(runs.four, 0).read_text()
    # Where there is no space, TensorStore may add to its own error, which ended the
    # save, that nobody waits any more for what else it could not write.
    assert "train loss" not in log_of(runs.four, 3).read_text()
    for index in (1, 2):
        lines = log_of(runs.four, index).read_text().splitlines()
        expected = ("[Gloo]", NO_SPACE)
        assert [x for x in lines if x and not x.startswith(expected)] == []
    steps = [(row["step"], *row) for row in records(runs.four)]
    assert len(set(steps)) == len(steps)
    assert (runs.four / "summary.json").is_file()


@pytest.mark.slow
def test_a_checkpoint_that_one_cannot_save_is_saved_by_none(runs: Runs):
    for index in range(4):
        said = log_of(runs.four, index).read_text()
        assert said.count(NO_SPACE) == 1 and "none was saved" in said
    assert {p.name for p in (runs.four / "checkpoints").iterdir()} == {"3", "6"}


@pytest.mark.slow
def test_two_processes_go_on_from_what_four_saved(runs: Runs, tmp_path: Path):
    four = dataclasses.replace(runs.one, workdir=runs.four)
    cut_at(four, 3, tmp_path / "two")
    two = tmp_path / "two"
    command = train_command(runs.config_file, two, full=FIRST_HAS_NO_SPACE)
    codes = wait(start(two, 2, command, devices=2), TIMEOUT_S)
    texts = [" ".join(log_of(two, index).read_text().split()) for index in (0, 1)]
    assert "at step 3." in texts[0]
    assert_close(records(two), records(runs.four))
    # Its last state has no space: the results are told, but it is no success.
    assert codes == [1, 1], texts
    for said in texts:
        assert said.count(NO_SPACE) == 1 and "that of step 3 is kept" in said
        assert said.endswith("the same command goes on from step 3")
        assert "Traceback" not in said
    assert "Test split, before" in texts[0]
    assert [p.name for p in (two / "checkpoints").iterdir()] == ["3"]


@pytest.mark.slow
def test_one_process_goes_on_from_what_four_saved(runs: Runs, tmp_path: Path):
    four = dataclasses.replace(runs.one, workdir=runs.four)
    alone = cut_at(four, 3, tmp_path / "one")
    train(alone)
    assert_close(records(alone.workdir), records(runs.four))


@pytest.fixture(scope="module")
def longer(runs: Runs) -> Path:
    """A step more than four processes took, by two that share every matrix."""
    folder, config = runs.four.parent, longer_config(runs)
    file, workdir = folder / "longer.py", folder / "longer"
    file.write_text(CONFIG_FILE.format(text=json.dumps(to_plain(config))))
    processes = start(workdir, 2, train_command(file, workdir))
    assert wait(processes, TIMEOUT_S) == [0, 0], log_of(workdir, 0).read_text()
    return workdir


def longer_config(runs: Runs) -> ConfigDict:
    config = from_plain(runs.one.plain_config)
    config.run.update(continue_from=str(runs.four), num_steps=7)
    config.tokenizer.path = str(runs.four / "tokenizer.model")
    config.mesh.update(ability=1, data=1, model=2)
    config.conflict.engine = "two_pass"
    return config


@pytest.mark.slow
def test_two_processes_share_a_model_and_go_on_from_another_run(
    runs: Runs, longer: Path, tmp_path: Path
):
    one = open_run(longer_config(runs), tmp_path / "one", QUIET, jax.devices()[:2])
    train(one)
    assert_close(records(longer), records(one.workdir))


@pytest.mark.slow
def test_two_processes_evaluate_reply_and_export_as_one(
    longer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scored = f"--workdir={longer} --tasks maths --limit=4 --max_new_tokens=4".split()
    replied = [f"--workdir={longer}", "--max_new_tokens=8", "1 + 2", "add 5 to a"]
    evaluate = ("-m", "dcft_jax.evaluate", *scored, f"--to={tmp_path / 'two'}")
    generate = ("-m", "dcft_jax.generate", *replied)
    to = tmp_path / "exported" / "two"
    export = ("-m", "dcft_jax.export", f"--workdir={longer}", f"--to={to}")
    export += ("--max_shard_size=8KB",)  # several files
    started = [
        *start(tmp_path / "evaluate", 2, evaluate),
        *start(tmp_path / "generate", 2, generate),
        *start(tmp_path / "export", 2, export),
    ]
    codes = wait(started, TIMEOUT_S)
    logs = {
        (name, index): log_of(tmp_path / name, index).read_text()
        for name in ("evaluate", "generate", "export")
        for index in (0, 1)
    }
    assert codes == [0] * 6, logs
    generate_main(replied)
    said = "".join(capsys.readouterr()).splitlines()
    assert sorted(said_by(logs["generate", 0])) == sorted(filter(None, said))
    evaluate_main([*scored, f"--to={tmp_path / 'one'}"])
    assert_same_scores(tmp_path / "two", tmp_path / "one")
    assert "bits per byte" in logs["evaluate", 0]
    assert not any(
        said_by(logs[name, 1]) for name in ("evaluate", "generate", "export")
    )
    one = to.with_name("one")
    export_main([*export[2:3], f"--to={one}", export[4]])
    assert {p.name for p in to.iterdir()} == {p.name for p in one.iterdir()}
    files = sorted(path.name for path in one.glob("*.safetensors*"))
    assert len(files) > 2
    for name in files:
        assert (to / name).read_bytes() == (one / name).read_bytes()
    assert {path.name for path in to.parent.iterdir()} == {"one", "two"}


def said_by(log: str) -> list[str]:
    return [line for line in log.splitlines() if line and not line.startswith("[Gloo]")]


def assert_same_scores(found: Path, expected: Path) -> None:
    assert {p.name for p in found.iterdir()} == {p.name for p in expected.iterdir()}
    texts = [(folder / "maths.jsonl").read_text() for folder in (found, expected)]
    for mine, theirs in zip(*map(str.splitlines, texts), strict=True):
        a, b = json.loads(mine), json.loads(theirs)
        assert a.pop("reference_nats") == pytest.approx(b.pop("reference_nats"), 1e-4)
        assert a == b
    mine, theirs = (
        json.loads((f / "scores.json").read_text()) for f in (found, expected)
    )
    for a, b in zip(mine["scores"], theirs["scores"], strict=True):
        assert a["n"] == b["n"] == 4
        assert a["value"] == pytest.approx(b["value"], 1e-4)


# Steps that all take together, as training does, for as long as nobody dies.
CHILD = """
import argparse, time
import jax
import numpy as np
from jax.experimental import multihost_utils
from dcft_jax import distributed

parser = argparse.ArgumentParser()
distributed.add_options(parser)
distributed.start_from(parser.parse_args())
with distributed.all_or_none():
    distributed.check_same("the child", 1.0, np.arange(3))
    assert not jax.config.jax_enable_compilation_cache
    for step in range(2000):
        multihost_utils.broadcast_one_to_all(np.int32(step))
        if step == 3:
            print("going", flush=True)
        time.sleep(0.05)
"""


def start_children(logs: Path, code: str = CHILD) -> list[subprocess.Popen]:
    file = logs.with_suffix(".py")
    file.write_text(code)
    return start(logs, 2, (str(file), "--heartbeat_timeout_seconds=5"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "how"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)]
)
def test_the_others_end_when_one_dies(tmp_path: Path, victim: int, how: signal.Signals):
    processes = start_children(tmp_path / "child")
    logs = [log_of(tmp_path / "child", index) for index in (0, 1)]
    deadline = time.monotonic() + 120
    while not all("going" in log.read_text() for log in logs):
        assert time.monotonic() < deadline, [log.read_text() for log in logs]
        time.sleep(0.2)
    processes[victim].send_signal(how)
    survivor = 1 - victim
    # Silence is noticed after 5 s; a closed connection at once.
    codes = wait(processes[survivor : survivor + 1], 60)
    processes[victim].kill()
    processes[victim].wait()
    assert codes[0] not in (0, -signal.SIGKILL), logs[survivor].read_text()
    said = logs[survivor].read_text()
    assert "Start all of them again" in said or "heartbeat" in said.lower()


@pytest.mark.slow
def test_processes_that_differ_are_told(tmp_path: Path):
    code = CHILD.replace("1.0,", "distributed.is_first(),")
    processes = start_children(tmp_path / "child", code)
    codes = wait(processes, 60)
    assert 0 not in codes and -signal.SIGKILL not in codes
    said = log_of(tmp_path / "child", 0).read_text()
    assert "the child: processes [1] differ from process 0" in said


# Two processes, each with half of every array.
HALVES = """
import argparse, os
from pathlib import Path
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from dcft_jax import distributed
from dcft_jax.training import checkpoint, full_disk, recovery
from tests.full_disk_run import fill_disk

parser = argparse.ArgumentParser()
parser.add_argument("--folder", type=Path)
distributed.add_options(parser)
args = parser.parse_args()
distributed.start_from(args)
halves = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
"""


def run_halves(folder: Path, code: str) -> list[str]:
    """What each of two processes prints."""
    file = folder / "halves.py"
    file.write_text(HALVES + code)
    command = (str(file), f"--folder={folder}")
    codes = wait(start(folder / "halves", 2, command), 120)
    texts = [log_of(folder / "halves", index).read_text() for index in (0, 1)]
    assert codes == [0, 0], texts
    return texts


# Of four checkpoints, the second has no space for what makes it whole, which the first
# process writes, and the third none for what the second process has of it.
SAVES = """
full = (r"checkpoints/2\\..*metrics", r"checkpoints/3\\..*metadata")
fill_disk(full[args.process_id])
x = jax.make_array_from_callback((8,), halves, lambda index: np.arange(8.0)[index])
opened = checkpoint.open_checkpoints(args.folder, 1, 1, ("a",))
with full_disk.closed(opened) as checkpoints:
    for step in (1, 2, 3, 4):
        checkpoint.save(checkpoints, step, {"x": x}, {}, {"a": 0.5})
        full_disk.wait_for_save(checkpoints, print)
        print("kept", [saved.step for saved in checkpoints.checkpoints])
"""


@pytest.mark.slow
def test_a_save_fails_for_all_wherever_it_fails(tmp_path: Path):
    texts = run_halves(tmp_path, SAVES)
    for text in texts:
        lines = [x for x in text.splitlines() if x.startswith(("kept", NO_SPACE))]
        said = [line.partition(":")[0] for line in lines]
        assert said == ["kept [1]", *("warning", "kept [1]") * 2, "kept [4]"]


# Of three checkpoints, the newest lacks bytes that only the second process reads, and
# the one before has metrics that only the first process can read.
LOADS = """
def array(step):
    x = np.random.default_rng(step).normal(size=(2, 10_000))
    return jax.make_array_from_callback(x.shape, halves, lambda index: x[index])

with checkpoint.open_checkpoints(args.folder, 1, 3) as checkpoints:
    for step in (1, 2, 3):
        checkpoint.save(checkpoints, step, {"x": array(step)}, {}, {"a": 0.5})
if distributed.is_first():
    files = (args.folder / "checkpoints/3/state/ocdbt.process_1/d").iterdir()
    os.truncate(max(files, key=lambda file: file.stat().st_size), 100)
else:
    read = Path.read_text
    Path.read_text = lambda path, *args, **options: (
        "{" if "/2/metrics" in str(path) else read(path, *args, **options)
    )
distributed.of_all(0)
recovery.set_aside_unlistable(args.folder, print)
with checkpoint.open_checkpoints(args.folder, 1, 3) as checkpoints:
    like = jax.ShapeDtypeStruct((2, 10_000), np.float64, sharding=halves)
    state = recovery.restore(checkpoints, {"x": like}, print)
    mine, expected = (x.addressable_data(0) for x in (state["x"], array(1)))
    np.testing.assert_array_equal(mine, expected)
"""


@pytest.mark.slow
def test_a_checkpoint_that_one_cannot_read_is_read_by_none(tmp_path: Path):
    texts = run_halves(tmp_path, LOADS)
    said = [said_by(text) for text in texts]
    assert said[0] == said[1] and len(said[0]) == 3
    assert "of step 2 cannot be read (Expecting property name" in said[0][0]
    assert "of step 3 cannot be read (processes [1]: " in said[0][1]
    assert said[0][2] == "Going back to the checkpoint of step 1."
    names = {path.name for path in (tmp_path / recovery.FOLDER).iterdir()}
    assert names == {"2", "3"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(process_id=1), "--coordinator_address: is missing"),
        (dict(coordinator_address="a:1", num_processes=2), "--process_id: is missing"),
        (
            dict(coordinator_address="host", num_processes=2, process_id=0),
            "--coordinator_address 'host': must be host:port",
        ),
        (
            dict(coordinator_address="a:1", num_processes=0, process_id=0),
            "--num_processes 0: must be at least 1",
        ),
        (
            dict(coordinator_address="a:1", num_processes=2, process_id=2),
            r"--process_id 2: must be in \[0, --num_processes 2\)",
        ),
    ],
)
def test_wrong_options_name_the_flag(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        distributed.start(**options)


def test_one_process_needs_nobody():
    distributed.start(num_processes=1)
    jax.devices()
    distributed.start()  # too late to look for others: as in a notebook
    assert not jax.distributed.is_initialized()
    with distributed.first_goes_first():
        distributed.check_same("anything", 1)
    assert distributed.of_all(3) == [3]
    with pytest.raises(SystemExit), distributed.all_or_none():
        sys.exit(3)


def test_clusters_are_left_to_jax(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **o: asked.append(o))
    distributed.start()
    distributed.start("10.0.0.1:8476", 4, 3, 7)
    assert asked == [
        dict(heartbeat_timeout_seconds=distributed.HEARTBEAT_TIMEOUT_S),
        dict(
            coordinator_address="10.0.0.1:8476",
            num_processes=4,
            process_id=3,
            heartbeat_timeout_seconds=7,
            cluster_detection_method="deactivate",
        ),
    ]
