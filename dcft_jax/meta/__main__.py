"""Learns which mixture to start from, and says what it would be.

python -m dcft_jax.meta collect --store runs/experience.sqlite --worlds 0-23
python -m dcft_jax.meta fit --store runs/experience.sqlite --out meta.safetensors
python -m dcft_jax.meta report --json
python -m dcft_jax.meta interpolate
python -m dcft_jax.meta predict --config configs/quickstart.py --support task.jsonl
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from dcft_jax.data.fetch.store import CACHE
from dcft_jax.meta import (
    EXPERIENCE,
    LEARNT_FROM,
    PROVED,
    cases,
    merge,
    open_store,
    save,
)
from dcft_jax.meta.agreement import agreements, show_agreements
from dcft_jax.meta.case import Case
from dcft_jax.meta.collect import collect
from dcft_jax.meta.families import TEST_TASKS
from dcft_jax.meta.features import ABILITY, PAIR, TASK, Features
from dcft_jax.meta.fit import Options, fit
from dcft_jax.meta.measured import show_measured
from dcft_jax.meta.picture import save_picture
from dcft_jax.meta.prove import prove
from dcft_jax.meta.published import PUBLISHED
from dcft_jax.meta.regret import solve
from dcft_jax.meta.report import report, show
from dcft_jax.meta.worlds import Settings, smoke, with_published


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of the command, and those for fields of the config."""
    parser = argparse.ArgumentParser(
        "python -m dcft_jax.meta",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("collect", help="train small models on many mixtures")
    one.add_argument("--store", type=Path, required=True, help="an SQLite file")
    one.add_argument("--worlds", type=worlds, required=True, help="such as 0-23")
    one.add_argument("--work", type=Path, help="for what goes on after a stop")
    one.add_argument(
        "--specialist-rank", type=int, default=0, help="measure interpolated adapters"
    )
    _add_published(one)
    one.add_argument("--smoke", action="store_true", help="as small as it gets")
    one = commands.add_parser("prove", help="train what the methods choose")
    one.add_argument("--store", type=Path, required=True, help="an SQLite file")
    one.add_argument("--worlds", type=worlds, required=True, help="of the store")
    one.add_argument("--tasks", nargs="+", default=["emerging"], help="see `report`")
    one.add_argument("--work", type=Path, help="that of `collect`")
    one.add_argument(
        "--ablation",
        action="store_true",
        help="also what the network chooses by parts of the embedding and other laws",
    )
    _add_published(one)
    one = commands.add_parser("fit", help="fit the network on experience")
    _add_store(one)
    one.add_argument("--out", type=Path, required=True, help="a safetensors file")
    one.add_argument("--seed", type=int, default=0)
    one = commands.add_parser("report", help="regret on categories left out")
    _add_store(one)
    one.add_argument("--json", action="store_true", help="JSON, and nothing else")
    one.add_argument("--seeds", type=int, default=5, help="ensembles")
    one.add_argument(
        "--tasks",
        nargs="+",
        default=["emerging"],
        help='test on these and never learn from them; "emerging" (default), '
        '"generated" or "published" ones of these, or "all" in turn',
    )
    one.add_argument(
        "--tested",
        type=Path,
        nargs="+",
        help="test in the worlds of these stores only; learn from all",
    )
    one.add_argument("--figure", type=Path, help="a PNG or SVG file to draw it into")
    one.add_argument("--no-ablation", action="store_true", help="the main table only")
    one = commands.add_parser(
        "interpolate", help="do interpolated specialists rank mixtures as training does"
    )
    _add_store(one)
    one.add_argument("--json", action="store_true", help="JSON, and nothing else")
    one.add_argument(
        "--tasks",
        nargs="+",
        default=["all"],
        help='"all" (default), "emerging", or names',
    )
    one = commands.add_parser("merge", help="add what other stores hold")
    one.add_argument("--into", type=Path, required=True)
    one.add_argument("stores", type=Path, nargs="+")
    for name, text in (
        ("embed", "what the base model shows of a task, as JSON"),
        ("predict", "the mixture that a run would start from"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("--config", required=True, help="a file of configs/")
        one.add_argument("--support", help="JSONL; config.mixture.meta.support")
        if name == "predict":
            one.add_argument("--network", help="config.mixture.meta.network")
            one.add_argument("--json", action="store_true")
    known, rest = parser.parse_known_args(argv)
    if rest and known.command not in ("embed", "predict"):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    return known, rest


def _add_published(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--published",
        nargs="?",
        const=CACHE,
        metavar="FOLDER",
        help="also measure on the tasks of `python -m dcft_jax.data.fetch unseen`, "
        f"fetched into FOLDER (default {CACHE}); worlds of their own",
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    text = "experience, also packed (.gz); default: that of the package"
    parser.add_argument(
        "--store", type=Path, nargs="+", default=[EXPERIENCE], help=text
    )


def worlds(text: str) -> list[int]:
    """`"0-2,7"` -> `[0, 1, 2, 7]`."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            found += range(int(first), int(last or first) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected numbers and ranges such as 0-23 or 0-2,7"
            ) from None
    return found


def read_cases(
    stores: Sequence[Path], sources: Sequence[str] = LEARNT_FROM
) -> list[Case]:
    """Of all stores together, models of these sources.

    Raises:
      FileNotFoundError, ValueError: see `merge`, or there is no case in them.
    """
    with contextlib.closing(open_store(":memory:")) as store:
        merge(store, stores)
        found = cases(store, sources=sources)
    if not found:
        names = ", ".join(map(str, stores))
        raise ValueError(
            f"--store {names}: no task with an embedding and at least 4 models; "
            "`collect` makes some"
        )
    return found


def settings_of(args: argparse.Namespace) -> Settings:
    """Of a collection, by the options of `collect` or `prove`."""
    settings = smoke() if getattr(args, "smoke", False) else Settings()
    if not args.published:
        return settings
    return dataclasses.replace(with_published(settings), directory=args.published)


def run_collect(args: argparse.Namespace) -> None:
    settings = dataclasses.replace(
        settings_of(args), specialist_rank=args.specialist_rank
    )
    collect(settings, args.store, args.worlds, args.work, Console(stderr=True))


def run_prove(args: argparse.Namespace) -> None:
    count = prove(
        *(settings_of(args), args.store, args.worlds, test_tasks(args.tasks)),
        work_dir=args.work,
        ablation=args.ablation,
        console=Console(stderr=True),
    )
    print(f"{args.store}: {count} mixtures trained that the methods choose")


def run_fit(args: argparse.Namespace) -> None:
    found = read_cases(args.store)
    console = Console(stderr=True)
    # These are what predictions are tested on.
    found = [case for case in found if case.task not in TEST_TASKS]
    with console.status(f"laws of {len(found)} cases"):
        solved = solve(found)
    with console.status("fitting the ensemble"):
        fitted = fit(solved, Options(seed=args.seed))
    save(fitted, args.out)
    print(
        f"{args.out}: {fitted.members} networks, {len(found)} cases of "
        f"{len(fitted.domain.categories)} categories. Regret on categories left out: "
        f"{fitted.held_out_regret:.3f} of the spread of losses; of the prior "
        f"{fitted.prior_regret:.3f}. Strength of the correction: {fitted.strength:g}."
    )


def run_report(args: argparse.Namespace) -> None:
    console = Console(stderr=True)
    found = read_cases(args.store)
    tested = args.tested and {case.world for case in read_cases(args.tested)}
    with console.status("") as status:
        table = report(
            found,
            seeds=range(args.seeds),
            ablation_seeds=() if args.no_ablation else range(min(args.seeds, 2)),
            test_tasks=test_tasks(args.tasks),
            test_worlds=tested,
            proved=read_cases(args.store, PROVED),
            progress=status.update,
        )
    if args.figure:
        save_picture(table, args.figure)
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        Console().print(show_measured(table["proved"]))
        Console().print(show(table["laws"]))


def run_interpolate(args: argparse.Namespace) -> None:
    trained = read_cases(args.store, ["population"])
    found = {}
    for source, title in INTERPOLATED.items():
        with contextlib.closing(open_store(":memory:")) as store:
            merge(store, args.store)
            mixed = cases(store, sources=[source])
        if mixed:
            found[title] = agreements(trained, mixed, test_tasks(args.tasks))
    if not found:
        names = ", ".join(map(str, args.store))
        raise ValueError(
            f"--store {names}: no interpolated models; `collect` makes some"
        )
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for title, one in found.items():
        Console().print(show_agreements(one, f"Interpolated {title}"))


def test_tasks(names: Sequence[str]) -> list[str] | None:
    """None: all tasks, category by category."""
    if names == ["all"]:
        return None
    published = [task for task in TEST_TASKS if task in PUBLISHED]
    generated = [task for task in TEST_TASKS if task not in PUBLISHED]
    groups = {
        "emerging": [*TEST_TASKS],
        "generated": generated,
        "published": published,
    }
    return [task for name in names for task in groups.get(name, [name])]


def run_merge(args: argparse.Namespace) -> None:
    with contextlib.closing(open_store(args.into)) as store:
        merge(store, args.stores)
        print(f"{args.into}: {len(cases(store))} cases")


def run_embed(args: argparse.Namespace, rest: Sequence[str]) -> None:
    from dcft_jax.training.meta_prior import embedded

    features, abilities = embedded(_config(args, rest), Console(stderr=True))
    print(json.dumps(as_json(features, abilities), indent=2))


def run_predict(args: argparse.Namespace, rest: Sequence[str]) -> None:
    from dcft_jax.training.meta_prior import embedded, predict_mixture

    config = _config(args, rest)
    features, abilities = embedded(config, Console(stderr=True))
    prediction, lines = predict_mixture(config, features, abilities)
    if not args.json:
        print("\n".join(lines))
        return
    found = prediction._asdict()
    for name in ("weights_K", "prior_K", "stderr_K"):
        values = np.asarray(found.pop(name), np.float64).tolist()
        found[name.removesuffix("_K")] = dict(zip(abilities, values, strict=True))
    print(json.dumps(found, indent=2))


def as_json(features: Features, abilities: Sequence[str]) -> dict:
    """Names and numbers; None: not measured."""

    def named(names: Sequence[str], values: np.ndarray) -> dict:
        return {
            name: float(value) if np.isfinite(value) else None
            for name, value in zip(names, values, strict=True)
        }

    return {
        "task": named(TASK, features.task_G),
        "abilities": {
            name: named(ABILITY, row_F)
            for name, row_F in zip(abilities, features.ability_KF, strict=True)
        },
        "pairs": {
            f"{abilities[i]} {abilities[j]}": named(PAIR, features.pair_KKP[i, j])
            for i in range(len(abilities))
            for j in range(i)
        },
        "rows": named(abilities, features.size_K),
    }


def _config(args: argparse.Namespace, rest: Sequence[str]) -> ConfigDict:
    """The config of the file with the fields that are set as in training."""
    values, argv = flags.FlagValues(), ["meta", f"--config={args.config}", *rest]
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv
    )
    try:
        left = values(argv)[1:]
    except AttributeError as error:  # of ml_collections, for an unknown field
        raise ValueError(f"--config: there is no field {error}") from error
    if left:
        raise ValueError(f"unexpected arguments: {' '.join(left)}")
    config = holder.value
    config.mixture.prior = "meta"
    for field in ("support", "network"):
        if getattr(args, field, None):
            config.mixture.meta[field] = getattr(args, field)
    return config


# Source of the models -> what was interpolated.
INTERPOLATED = {"interpolated": "specialists", "interpolated-lora": "adapters"}
COMMANDS = {
    "interpolate": run_interpolate,
    "collect": run_collect,
    "prove": run_prove,
    "fit": run_fit,
    "report": run_report,
    "merge": run_merge,
}
WITH_CONFIG = {"embed": run_embed, "predict": run_predict}


def main(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    args, rest = parse(argv)
    try:
        if args.command in COMMANDS:
            COMMANDS[args.command](args)
        else:
            WITH_CONFIG[args.command](args, rest)
    except (ValueError, OSError, ImportError, flags.Error) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
