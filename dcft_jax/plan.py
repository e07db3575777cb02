"""Says what a config needs on a TPU, without one.

python -m dcft_jax.plan --config configs/tpu_v4.py --topology v4:2x2x4
python -m dcft_jax.plan --config configs/quickstart.py --json
"""

import json
import os
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from dcft_jax.planning import as_json, make_plan, show_plan
from dcft_jax.sharding import set_cpu_devices

_CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="a file of configs/"
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    "",
    "What to compile for: v4, v5e, v5p or v6e and the chips along each axis, such as "
    "v4:4x4x4. Default: the devices at hand.",
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON, and nothing else, on stdout.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    if _TOPOLOGY.value:
        _keep_off_tpus()
    set_cpu_devices(_CONFIG.value.mesh.cpu_devices)
    console = Console(stderr=_JSON.value)
    try:
        plan = make_plan(_CONFIG.value, _TOPOLOGY.value, console)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    if _JSON.value:
        print(json.dumps(as_json(plan), indent=2))
    else:
        show_plan(plan, console)


def _keep_off_tpus() -> None:
    """libtpu only compiles: it asks for no TPU, and several processes may do so."""
    jax.config.update("jax_platforms", "cpu")
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),  # or it complains of having none
        ("TPU_STDERR_LOG_LEVEL", "3"),
    ):
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
