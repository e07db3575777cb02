"""What people see during a run: a live display, or lines without a terminal."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dcft_jax.reporting.pace import Pace, duration

_REDRAWS_PER_S = 4
# metric prefix -> column of the table of abilities
_COLUMNS = {
    "train/loss": "train loss",
    "mixture/weight": "weight",
    "mix_val/loss": "mix-val loss",
    "mix_val/exact_match": "exact match",
    "mix_val/accuracy": "generated",
}


class Progress:
    """Shows how far a run is; use it as a context manager.

    On a terminal it is one display, redrawn a few times per second at most. Elsewhere
    (a pipe, CI, Colab, nohup) it is one plain line per update and per phase.
    """

    def __init__(
        self,
        num_steps: int,
        abilities: Sequence[str],
        console: Console | None = None,
        start_step: int = 0,
    ):
        self._num_steps = num_steps
        self._abilities = tuple(abilities)
        self._console = console or Console()
        self._step = start_step
        self._pace = Pace(start_step)
        self._latest: dict[str, float] = {}
        self._phase = ""
        self._num_acted = self._num_resolved = 0.0
        self._live = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=_REDRAWS_PER_S,
            )

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Shows what is being done instead of training, such as "evaluating".

        "compiling" happens once and so does not count towards the time left.
        """
        start_s = time.monotonic()
        self._phase = name
        if not self._live:
            self._line(f"step {self._step}  {name} ...")
        try:
            yield
        finally:
            end_s = time.monotonic()
            self._pace.pause(end_s - start_s, recurs=name != "compiling")
            self._phase = ""
            if not self._live:
                took = duration(end_s - start_s)
                self._line(f"step {self._step}  {name} took {took}")

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of a step, under the names they are written with."""
        self._step = step
        if any(key.startswith("train/") for key in metrics):
            self._pace.advance(step, time.monotonic())
        self._num_acted += metrics.get("conflict/acted", 0.0)
        self._num_resolved += "conflict/acted" in metrics
        self._latest = {**self._latest, **metrics}  # the display's thread reads it
        if not self._live:
            self._line(self._describe(metrics))

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _describe(self, metrics: Mapping[str, float]) -> str:
        """One line with the new values, abilities in their order."""
        parts = [f"step {self._step}/{self._num_steps}"]
        for prefix, name in (*_COLUMNS.items(), ("test/loss", "test loss")):
            values = [
                f"{ability} {metrics[f'{prefix}/{ability}']:.3f}"
                for ability in self._abilities
                if f"{prefix}/{ability}" in metrics
            ]
            if values:
                parts.append(f"{name} {', '.join(values)}")
        if "train/tokens_per_s" in metrics:
            parts.append(self._status())
        return "  ".join(parts)

    def _status(self) -> str:
        parts = []
        if "train/tokens_per_s" in self._latest:
            parts.append(f"{self._latest['train/tokens_per_s']:,.0f} tokens/s")
        seconds_left = self._pace.seconds_left(self._num_steps)
        if seconds_left is not None:
            parts.append(f"{duration(seconds_left)} left")
        if self._num_resolved:
            share = self._num_acted / self._num_resolved
            parts.append(f"conflict in {share:.0%} of steps")
        return "  ".join(parts)

    def _render(self) -> Group:
        """The live display; runs in the display's own thread."""
        header = Table.grid(padding=(0, 2))
        phase = self._phase or ("training" if self._latest else "starting")
        header.add_row(
            ProgressBar(total=self._num_steps, completed=self._step, width=32),
            Text(f"{self._step}/{self._num_steps}", style="bold"),
            Text(self._status()),
            Text(phase, style="magenta" if self._phase else "green"),
        )
        return Group(header, self._table()) if self._latest else Group(header)

    def _table(self) -> Table:
        latest = self._latest
        shown = {
            prefix: name
            for prefix, name in _COLUMNS.items()
            if any(f"{prefix}/{ability}" in latest for ability in self._abilities)
        }
        table = Table("ability", box=None, padding=(0, 2), header_style="dim")
        for name in shown.values():
            table.add_column(name, justify="right")
        for ability in self._abilities:
            values = [latest.get(f"{prefix}/{ability}") for prefix in shown]
            cells = ["-" if value is None else f"{value:.3f}" for value in values]
            table.add_row(Text(ability), *cells)
        return table
