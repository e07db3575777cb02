"""The harness with short programs in the place of the trainer."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from configs import from_scratch
from dcft_jax.config import config_hash, from_plain, to_plain
from experiments import jobs as jobs_module
from experiments.harness import LOG, is_finished, run_job, run_jobs
from experiments.jobs import Job, make_job
from experiments.stored_config import get_config

# Leaves a line for each start, then does what the config says.
PROGRAM = """
import json, os, pathlib, sys, time
workdir = pathlib.Path(sys.argv[1])
config = json.loads((workdir / "config.json").read_text())
if hasattr(os, "sched_getaffinity"):
    (workdir / "cores.txt").write_text(str(len(os.sched_getaffinity(0))))
with (workdir.parent / "starts.txt").open("a") as file:
    file.write(config["label"] + "\\n")
time.sleep(config["sleep"])
print("the last words of", config["label"])
if config["fail"]:
    sys.exit(3)
(workdir / "summary.json").write_text("{}")
"""


def program(workdir: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(workdir)]


def fake_job(label: str, *after: Job, fail: bool = False, sleep: float = 0.0) -> Job:
    config = dict(abilities={}, label=label, fail=fail, sleep=sleep)
    return Job("setting", label, 0, config, after)


def starts(runs: Path) -> list[str]:
    path = runs / "starts.txt"
    return path.read_text().split() if path.exists() else []


def sweep(jobs: list[Job], runs: Path, num_workers: int = 2):
    return run_jobs(jobs, runs, num_workers, Console(quiet=True), program)


def test_every_job_runs_once_and_never_again(tmp_path: Path):
    jobs = [fake_job(label) for label in "abcde"]
    assert sweep(jobs, tmp_path) == []
    assert sorted(starts(tmp_path)) == list("abcde")
    assert all(is_finished(job.workdir(tmp_path)) for job in jobs)
    assert sweep([*jobs, fake_job("f")], tmp_path) == []
    assert sorted(starts(tmp_path)) == list("abcdef")


def test_jobs_with_one_config_share_a_run(tmp_path: Path):
    first = fake_job("a")
    second = Job("setting", "another name", 0, first.config)
    assert sweep([first, second], tmp_path) == []
    assert starts(tmp_path) == ["a"]


def test_other_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = fake_job("a")
    sweep([job], tmp_path)
    monkeypatch.setattr("experiments.jobs.code_version", lambda: "0ther000")
    sweep([job], tmp_path)
    assert starts(tmp_path) == ["a", "a"]


def test_a_failure_stops_nobody_and_comes_with_its_last_words(tmp_path: Path):
    bad = fake_job("bad", fail=True)
    lost = fake_job("lost", bad)
    lost_too = fake_job("lost_too", lost)
    jobs = [lost_too, bad, fake_job("a"), lost, fake_job("b")]
    failures = {f.job.method: f.reason for f in sweep(jobs, tmp_path, num_workers=1)}
    assert sorted(starts(tmp_path)) == ["a", "b", "bad"]
    assert failures.keys() == {"bad", "lost", "lost_too"}
    assert "exit code 3" in failures["bad"]
    assert failures["bad"].endswith("the last words of bad")
    assert failures["lost"] == "needs setting / bad / seed 0, which failed"
    assert "lost" in failures["lost_too"]


def test_a_failed_job_is_tried_again(tmp_path: Path):
    bad = fake_job("bad", fail=True)
    assert len(sweep([bad], tmp_path)) == len(sweep([bad], tmp_path)) == 1
    assert starts(tmp_path) == ["bad", "bad"]
    assert (bad.workdir(tmp_path) / LOG).read_text().count("last words") == 2


def test_a_job_runs_after_those_it_needs(tmp_path: Path):
    first = fake_job("first", sleep=0.5)
    second = fake_job("second", first)
    third = fake_job("third", second, first)
    # Those it needs need not be listed.
    assert sweep([third, fake_job("free")], tmp_path) == []
    order = starts(tmp_path)
    assert sorted(order) == ["first", "free", "second", "third"]
    assert order.index("first") < order.index("second") < order.index("third")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_a_run_is_held_on_one_core(tmp_path: Path):
    before = os.sched_getaffinity(0)
    jobs = [fake_job(label) for label in "abc"]
    sweep(jobs, tmp_path)
    for job in jobs:
        assert (job.workdir(tmp_path) / "cores.txt").read_text() == "1"
    assert os.sched_getaffinity(0) == before


def test_sweeps_at_the_same_time_share_the_work(tmp_path: Path):
    jobs = [fake_job(label, sleep=0.3) for label in "abc"]
    threads = [threading.Thread(target=sweep, args=(jobs, tmp_path)) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(starts(tmp_path)) == ["a", "b", "c"]


def test_the_next_sweep_waits_for_a_run_that_outlived_its_own(tmp_path: Path):
    job = fake_job("long", sleep=3.0)
    script = f"""
        from pathlib import Path
        from tests.experiments.test_harness import fake_job, program
        from experiments.harness import run_job
        run_job(fake_job("long", sleep=3.0), Path({str(tmp_path)!r}), program)
    """
    sweeper = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    deadline = time.monotonic() + 60
    while not starts(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    sweeper.send_signal(signal.SIGKILL)
    sweeper.wait()
    assert not is_finished(job.workdir(tmp_path))
    assert run_job(job, tmp_path, program) is None
    assert starts(tmp_path) == ["long"]


def test_only_what_computes_is_part_of_the_code_version():
    def version(source: str) -> str:
        return jobs_module._syntax(source)

    plain = "def f(x):\n    return x + 1\n"
    told = '"""A module."""\n# Why.\ndef f(x):\n    """Adds."""\n    return (x + 1)\n'
    assert version(plain) == version(told)
    assert version(plain) != version(plain.replace("1", "2"))
    assert jobs_module.code_version() == jobs_module.code_version()


def test_a_config_survives_storage(tmp_path: Path):
    config = from_scratch.get_config()
    plain = to_plain(config)
    job = make_job("s", "m", 7, config)
    assert config.run.seed == 0  # the caller's is not touched
    path = tmp_path / "config.json"
    run_job(job, tmp_path, lambda w: ["cp", str(w / "config.json"), str(path)])
    again = get_config(str(path))
    assert again.run.seed == 7
    again.run.seed = 0
    assert to_plain(again) == plain
    assert list(again.abilities) == list(config.abilities)
    assert config_hash(to_plain(again)) == config_hash(plain)


def test_a_config_that_the_trainer_refuses_is_no_job():
    config = from_plain(to_plain(from_scratch.get_config()))
    config.mixture.options.mirror_descent.floor = 2.0
    with pytest.raises(ValueError, match=r"mixture.floor is 2.0"):
        make_job("s", "m", 0, config)
