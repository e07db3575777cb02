"""Fine-tunes one model on several abilities.

python -m dcft_jax.main --config configs/quickstart.py
python -m dcft_jax.main --config configs/quickstart.py --config.run.num_steps=500
"""

from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from dcft_jax.sharding import set_cpu_devices
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


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it touches
    set_cpu_devices(_CONFIG.value.mesh.cpu_devices)
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, argument = path.partition(":")  # configs/quickstart.py:maths
    name = "-".join(filter(None, (Path(file).stem, argument)))
    try:
        run = open_run(_CONFIG.value, _WORKDIR.value or f"runs/{name}")
    except (ValueError, OSError, ImportError) as error:
        # What users can put right needs no traceback.
        fail(error)
    try:
        train(run)
    except Preempted as saved:
        Console().print(str(saved), markup=False, highlight=False, soft_wrap=True)
    except (FloatingPointError, NotSavedError) as error:
        fail(error)


def fail(error: Exception) -> NoReturn:
    Console(stderr=True).print(
        "error:", str(error), markup=False, highlight=False, soft_wrap=True
    )
    raise SystemExit(1) from error


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
