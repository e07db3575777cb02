import io
import time

import pytest
from rich.console import Console

from dcft_jax.reporting import Progress
from dcft_jax.reporting.pace import Pace, duration

METRICS = {
    "train/loss/math": 1.25,
    "train/loss/[code]": 2.5,
    "mixture/weight/math": 0.7,
    "mixture/weight/[code]": 0.3,
    "train/tokens_per_s": 1234.0,
    "conflict/acted": 1.0,
}


def test_without_a_terminal_every_update_and_phase_is_a_plain_line():
    out = io.StringIO()
    with Progress(10, ["math", "[code]"], Console(file=out, width=40)) as progress:
        with progress.phase("compiling"):
            pass
        progress.update(1, METRICS)
        progress.update(2, METRICS | {"conflict/acted": 0.0})
        progress.update(2, {"mix_val/loss/math": 1.5})
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert lines[0] == "step 0  compiling ..." and "compiling took" in lines[1]
    assert lines[2].startswith("step 1/10  train loss math 1.250, [code] 2.500")
    assert "weight math 0.700, [code] 0.300" in lines[2]
    assert "1,234 tokens/s" in lines[2] and "conflict in 50% of steps" in lines[3]
    assert " left" not in lines[2] and " left" in lines[3]
    assert lines[4] == "step 2/10  mix-val loss math 1.500"


def test_the_live_display_shows_the_run_and_redraws_seldom():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    start_s = time.monotonic()
    with Progress(2000, ["math", "[code]"], console) as progress:
        for step in range(1, 2001):
            progress.update(step, METRICS)
        with progress.phase("evaluating"):
            time.sleep(0.6)
    seconds = time.monotonic() - start_s
    shown = out.getvalue()
    for text in ("2000/2000", "1,234 tokens/s", "evaluating", "[code]", "0.700"):
        assert text in shown
    assert shown.count("train loss") <= 5 * seconds + 3


def test_an_error_inside_ends_the_display_and_comes_out():
    console = Console(file=io.StringIO(), force_terminal=True)
    progress = Progress(2, ["a"], console)
    with pytest.raises(KeyError), progress, progress.phase("saving"):
        raise KeyError("x")
    with Progress(2, ["a"], console):  # rich refuses a second live display
        pass


def test_time_left_is_recent_step_time_plus_recurring_pauses():
    pace = Pace(step=0)
    pace.pause(50.0, recurs=False)  # compiling
    assert pace.seconds_left(100) is None
    pace.advance(1, 60.0)
    assert pace.seconds_left(100) is None
    pace.advance(2, 61.0)
    assert pace.seconds_left(100) == pytest.approx(98)
    pace.pause(4.0, recurs=True)  # one evaluation in four steps: 1 s per step
    pace.advance(4, 67.0)
    assert pace.seconds_left(100) == pytest.approx(96 * (1 + 1))
    assert pace.seconds_left(3) == 0


def test_time_left_follows_the_recent_rate():
    pace = Pace(step=0)
    now_s = 0.0
    for step in range(100):
        now_s += 10.0 if step < 50 else 1.0
        pace.advance(step, now_s)
    assert pace.seconds_left(109) == pytest.approx(10.0)


def test_after_a_resume_only_the_steps_of_this_process_count():
    pace = Pace(step=50)
    pace.advance(51, 1.0)
    pace.pause(2.0, recurs=True)
    pace.advance(52, 4.0)
    assert pace.seconds_left(54) == pytest.approx(2 * (1 + 1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4s"), (12, "12s"), (59.9, "1m 00s"), (185, "3m 05s"), (7620, "2h 07m")],
)
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text
