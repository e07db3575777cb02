"""Writes the model of a run as files that transformers, PEFT and others read.

python -m dcft_jax.export --workdir runs/quickstart --to exported/quickstart
python -m dcft_jax.export --workdir runs/smollm2 --to exported/adapters --adapters
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence

from absl import logging

from dcft_jax import distributed
from dcft_jax.training.export_run import export_run
from dcft_jax.training.model_card import Exported

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it touches
    arguments = sys.argv[1:] if argv is None else argv
    with distributed.all_or_none():
        exported = _export(args, f"{parser.prog} {shlex.join(arguments)}")
    if not distributed.is_first():
        return
    found = exported.divergence
    what = "adapters" if exported.adapters else "model"
    print(
        f"{args.to}: the {what} of step {exported.step} in {exported.dtype}; read "
        f"back, KL to the run {found.mean:.2g} nats per token, at most {found.max:.2g}"
    )


def _export(args: argparse.Namespace, command: str) -> Exported:
    try:
        distributed.start_from(args)
        return export_run(
            args.workdir,
            args.to,
            checkpoint=args.checkpoint,
            adapters=args.adapters,
            dtype=args.dtype,
            max_shard_size=_bytes(args.max_shard_size),
            command=command,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]B)?", size)
    if match is None:
        raise ValueError(f"--max_shard_size {size!r}: must be like 5GB, 200MB or 4096")
    return int(match[1]) * _UNITS[match[2] or ""]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.export",
        description="Writes the model of a run as HuggingFace files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="folder that training was started with")
    add("--to", required=True, help="folder to make; must not be there, or be empty")
    add(
        "--checkpoint",
        default="latest",
        help="latest, best:<ability> (its lowest mix-val loss) or a step",
    )
    add("--adapters", action="store_true", help="LoRA adapters alone, for PEFT")
    add("--dtype", default="", help="float32, bfloat16 or float16; empty: the base's")
    add("--max_shard_size", default="5GB", help="of one file; more are split")
    distributed.add_options(parser)
    return parser


if __name__ == "__main__":
    main()
