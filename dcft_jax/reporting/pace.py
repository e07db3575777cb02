"""How fast a run goes and when it will end."""

from collections import deque

_WINDOW = 20  # recent updates that the rate is taken from


class Pace:
    """Time left from recent steps plus the average of the recurring pauses.

    Training time and pauses are kept apart: whether an evaluation happens to lie in
    the recent window does not make the estimate jump. Compilation counts as neither,
    nor does anything before the first update.
    """

    def __init__(self, step: int):
        self._start_step = step
        self._paused_s = 0.0
        self._recurring_s = 0.0
        self._recent: deque[tuple[int, float]] = deque(maxlen=_WINDOW)

    def pause(self, seconds: float, recurs: bool) -> None:
        self._paused_s += seconds
        self._recurring_s += seconds if recurs else 0.0

    def advance(self, step: int, now_s: float) -> None:
        self._recent.append((step, now_s - self._paused_s))

    def seconds_left(self, num_steps: int) -> float | None:
        """Seconds until `num_steps` are done; None before the second update."""
        if len(self._recent) < 2 or self._recent[0][0] == self._recent[-1][0]:
            return None
        (first_step, first_s), (last_step, last_s) = self._recent[0], self._recent[-1]
        step_s = (last_s - first_s) / (last_step - first_step)
        pause_s = self._recurring_s / (last_step - self._start_step)
        return max(0, num_steps - last_step) * (step_s + pause_s)


def duration(seconds: float) -> str:
    """Such as "0.4s", "12s", "3m 05s" or "2h 07m"."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
