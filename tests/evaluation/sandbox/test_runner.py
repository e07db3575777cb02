import dataclasses
import subprocess
import sys
import threading
import time

import pytest

from dcft_jax.evaluation.sandbox import Limits, Sandbox, run_program, run_programs


def test_outcomes_are_in_the_order_of_the_programs(any_sandbox: Sandbox):
    delays = [0.3, 0.0, 0.2, 0.0, 0.1]
    programs = [
        (f"import time; time.sleep({delay})", f"assert {number} % 2 == 0")
        for number, delay in enumerate(delays)
    ]
    calls: list[tuple[int, int]] = []
    outcomes = run_programs(
        programs,
        sandbox=any_sandbox,
        workers=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert [o.status for o in outcomes] == [
        "passed", "failed", "passed", "failed", "passed"
    ]  # fmt: skip
    assert calls == [(done, 5) for done in range(1, 6)]
    # The clock starts when we have read that the program may begin.
    assert outcomes[0].seconds >= 0.2


def test_programs_after_the_deadline_are_not_run(any_sandbox: Sandbox):
    programs = [("import time; time.sleep(0.4)", "")] * 4
    deadline = time.monotonic() + 0.6
    outcomes = run_programs(programs, sandbox=any_sandbox, workers=1, deadline=deadline)
    statuses = [o.status for o in outcomes]
    assert statuses[0] == "passed"
    assert statuses[-1] == "not run"
    late = run_programs(programs, sandbox=any_sandbox, deadline=time.monotonic())
    assert {o.status for o in late} == {"not run"}


def test_no_programs(any_sandbox: Sandbox):
    assert run_programs([], sandbox=any_sandbox) == []


def test_the_same_hashes_in_every_run(sandbox: Sandbox):
    """PYTHONHASHSEED is heard: the order of sets of strings is the same."""
    code = "raise ValueError(hash('text'), list({'a', 'b', 'c', 'd'}))"
    errors = {run_program(code, "", sandbox).error for _ in range(3)}
    direct = subprocess.run(
        [sys.executable, "-c", "print(hash('text'))"],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(errors) == 1
    assert f"({direct.stdout.strip()}," in errors.pop()


def test_one_thread_for_numerical_libraries(sandbox: Sandbox):
    code = "import os, sys"
    tests = "assert os.environ['OMP_NUM_THREADS'] == '1'\nassert not sys.flags.optimize"
    assert run_program(code, tests, sandbox).status == "passed"


def test_isolated_from_packages(sandbox: Sandbox):
    tests = (
        "assert not any('site-packages' in p or p == '' for p in sys.path), sys.path"
    )
    outcome = run_program("import sys", tests, sandbox)
    assert outcome.status == "passed", outcome


def test_a_broken_sandbox_is_an_error_and_no_verdict():
    broken = Sandbox("bwrap", (sys.executable, "-c", "print('no namespaces left')"))
    with pytest.raises(RuntimeError, match="no namespaces left"):
        run_programs([("", "")] * 3, sandbox=broken)


def test_other_threads_do_not_matter(any_sandbox: Sandbox):
    """Several callers at once, as an evaluation beside training."""
    results: list[str] = []

    def call() -> None:
        outcomes = run_programs([("a = 1", "assert a")] * 5, sandbox=any_sandbox)
        results.extend(o.status for o in outcomes)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["passed"] * 15


@pytest.mark.parametrize(
    ("field", "value"),
    [("cpu_seconds", 0), ("wall_seconds", -1.0), ("memory_bytes", 1024),
     ("open_files", 3), ("processes", 0), ("wall_seconds", float("nan"))],
)  # fmt: skip
def test_limits_are_checked(field: str, value: float):
    with pytest.raises(ValueError, match=rf"limits\.{field}="):
        dataclasses.replace(Limits(), **{field: value})


def test_workers_are_checked(any_sandbox: Sandbox):
    with pytest.raises(ValueError, match="workers=0"):
        run_programs([("", "")], sandbox=any_sandbox, workers=0)


@pytest.mark.slow
def test_a_thousand_programs(any_sandbox: Sandbox):
    programs = [(f"a = {n}", f"assert a % 3 != 0, {n}") for n in range(1000)]
    limits = Limits(wall_seconds=60, cpu_seconds=20)
    outcomes = run_programs(programs, sandbox=any_sandbox, workers=32, limits=limits)
    for n, outcome in enumerate(outcomes):
        expected = ("passed", "") if n % 3 else ("failed", f"AssertionError: {n}")
        assert outcome[:2] == expected
