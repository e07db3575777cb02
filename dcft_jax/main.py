"""Fine-tunes one model on several abilities.

python -m dcft_jax.main --config configs/quickstart.py
python -m dcft_jax.main --config configs/quickstart.py --config.run.num_steps=500
"""

from logging import LogRecord
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from dcft_jax import distributed
from dcft_jax.planning import explain_exhausted, is_exhausted
from dcft_jax.sharding import set_cpu_devices
from dcft_jax.training.exclusive import InUseError
from dcft_jax.training.full_disk import NotSavedError
from dcft_jax.training.loop import train
from dcft_jax.training.preemption import Preempted
from dcft_jax.training.run import open_run

_CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="a file of configs/"
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run; started again on the same folder, it resumes. "
    "Default: runs/<name of the config>.",
)

for _name, (_kind, _help) in distributed.OPTIONS.items():
    _define = flags.DEFINE_integer if _kind is int else flags.DEFINE_string
    _define(_name, None, _help)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it touches
    logging.get_absl_logger().addFilter(is_news)
    set_cpu_devices(_CONFIG.value.mesh.cpu_devices)
    try:
        distributed.start(**{n: flags.FLAGS[n].value for n in distributed.OPTIONS})
    except (ValueError, RuntimeError) as error:
        fail(error)
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, argument = path.partition(":")  # configs/quickstart.py:maths
    name = "-".join(filter(None, (Path(file).stem, argument)))
    with distributed.all_or_none():
        run_config(_CONFIG.value, _WORKDIR.value or f"runs/{name}")


def is_news(record: LogRecord) -> bool:
    """Orbax logs, with a traceback, errors that it raises as well."""
    return not (record.exc_info and "orbax" in Path(record.pathname).parts)


def run_config(config: ConfigDict, workdir: str) -> None:
    """Trains; where memory runs out, says what the config needs."""
    try:
        open_and_train(config, workdir)
    except jax.errors.JaxRuntimeError as error:
        if not is_exhausted(error):
            raise
        explain_exhausted(error, config, Console(stderr=True))
        raise SystemExit(1) from error


def open_and_train(config: ConfigDict, workdir: str) -> None:
    console = Console(quiet=not distributed.is_first())
    try:
        run = open_run(config, workdir, console)
    except (ValueError, OSError, ImportError) as error:
        # What users can put right needs no traceback.
        fail(error)
    try:
        train(run)
    except Preempted as saved:
        Console().print(str(saved), markup=False, highlight=False, soft_wrap=True)
    except (FloatingPointError, InUseError, NotSavedError) as error:
        fail(error)


def fail(error: Exception) -> NoReturn:
    Console(stderr=True).print(
        "error:", str(error), markup=False, highlight=False, soft_wrap=True
    )
    raise SystemExit(1) from error


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
