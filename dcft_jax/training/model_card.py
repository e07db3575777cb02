"""The model card of an export: README.md in the format of huggingface.co."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dcft_jax.config import config_hash
from dcft_jax.models.pretrained.origin import Origin
from dcft_jax.reporting import History, load_history
from dcft_jax.reporting.summary import measured, test_metrics, with_error
from dcft_jax.training.divergence import Divergence
from dcft_jax.training.trained import Trained

FILE = "README.md"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written."""

    step: int  # of the checkpoint
    dtype: str
    adapters: bool
    origin: Origin | None  # of the base; None: trained from scratch
    divergence: Divergence  # from the model of the run


def write_card(
    folder: Path, workdir: Path, trained: Trained, exported: Exported, command: str
) -> None:
    """Writes README.md from the record of the run in `workdir`.

    Raises:
      ValueError, OSError: the record cannot be read.
    """
    history = load_history(workdir)
    sizes = json.loads((workdir / "data.json").read_text()).get("abilities", {})
    sections = [
        _header(exported),
        f"# {_title(exported)}",
        _introduction(history, trained, exported),
        "## Data",
        _data(history.config, sizes),
        "## Mixture",
        _mixture(history, exported.step),
        "## Test split, before and after training",
        _metrics(history, exported.step),
        "## How it was made",
        _origin(history, trained, exported, command),
    ]
    (folder / FILE).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def mean_weights(history: History, step: int) -> np.ndarray:
    """[K] weights over the steps before `step`, each counted as long as it held."""
    weight_TK = history.per_ability("mixture/weight")
    known_T = ~np.isnan(weight_TK).any(axis=1) & (history.step_T <= step)
    if not known_T.any():
        return np.full(len(history.abilities), np.nan)
    weight_TK, start_T = weight_TK[known_T], history.step_T[known_T]
    lasted_T = np.diff(np.append(start_T, step))
    if not lasted_T.any():  # a checkpoint from before the first step
        return weight_TK[-1]
    return np.average(weight_TK, axis=0, weights=lasted_T)


def final_weights(history: History, step: int) -> np.ndarray:
    """[K] weights that a run has at `step`."""
    weight_TK = history.per_ability("mixture/weight")
    known_T = ~np.isnan(weight_TK).any(axis=1) & (history.step_T <= step)
    missing_K = np.full(len(history.abilities), np.nan)
    return weight_TK[known_T][-1] if known_T.any() else missing_K


def _header(exported: Exported) -> str:
    """YAML; its strings are written as JSON, which is YAML too."""
    origin = exported.origin
    library = "peft" if exported.adapters else "transformers"
    tags = ["dcft-jax", "jax", *(["lora"] if exported.adapters else [])]
    lines = ["---"]
    if origin is not None and origin.license:
        lines.append(f"license: {json.dumps(origin.license)}")
    if origin is not None:
        lines.append(f"base_model: {json.dumps(origin.name)}")
        relation = "adapter" if exported.adapters else "finetune"
        lines.append(f"base_model_relation: {relation}")
    lines += [f"library_name: {library}", "pipeline_tag: text-generation"]
    lines += [f"tags: {json.dumps(tags)}", "---"]
    return "\n".join(lines)


def _title(exported: Exported) -> str:
    if exported.origin is None:
        return "A decoder trained from scratch"
    name = exported.origin.name
    return f"{'LoRA adapters of' if exported.adapters else 'Fine-tuned'} {name}"


def _introduction(history: History, trained: Trained, exported: Exported) -> str:
    names = _list(history.abilities)
    lines = [
        f"Trained with DCFT-JAX on {len(history.abilities)} abilities: {names}. This "
        f"is the checkpoint of step {exported.step} of "
        f"{history.config['run']['num_steps']}, in {exported.dtype}."
    ]
    if exported.adapters and trained.model.lora is not None:
        lora = trained.model.lora
        lines.append(
            f"Rank {lora.rank}, alpha {lora.alpha:g}, scaled by alpha / "
            f"{'sqrt(r)' if lora.rank_stabilised else 'r'}, on {_list(lora.targets)}."
        )
    if exported.origin is not None and not exported.origin.same_weights:
        lines.append(
            "Training started from a quantised copy of the base; with the weights "
            "under its name, adapters give slightly other predictions than in training."
        )
    quantize = history.config["pretrained"]["quantize"]
    if exported.adapters and quantize != "none":
        lines.append(
            f"The frozen weights were {quantize} in training; on others, adapters give "
            "slightly other predictions."
        )
    if exported.origin is None or not exported.origin.license:
        lines.append(
            "**Licence:** not stated; whoever publishes these files has to decide, "
            "from that of the base and of the data."
        )
    return "\n\n".join(lines)


def _data(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> str:
    rows = []
    for ability, fields in config["abilities"].items():
        counted = sizes.get(ability, {})
        for source, settings in fields["sources"].items():
            numbers = counted.get("examples", {}).get(source, {})
            rows.append(
                [ability, source, settings["kind"]]
                + [_count(numbers.get(s)) for s in ("train", "mix_val", "test")]
            )
    head = ["ability", "source", "kind", "train", "mix-val", "test"]
    table = _table(head, rows)
    packed = [f"{n['train_rows']:,} of {a}" for a, n in sizes.items()]
    if not packed:
        return table
    return f"{table}\n\nExamples. Packed rows to train on: {', '.join(packed)}."


def _mixture(history: History, step: int) -> str:
    mixture, conflict = history.config["mixture"], history.config["conflict"]
    final_K, mean_K = final_weights(history, step), mean_weights(history, step)
    rows = [
        [ability, *(with_error(_known(v), None, "") for v in (final_K[k], mean_K[k]))]
        for k, ability in enumerate(history.abilities)
    ]
    text = (
        f"Weights moved by the rule `{mixture['rule']}` from the prior "
        f"`{mixture['prior']}`; conflicts between gradients resolved by "
        f"`{conflict['resolver']}`. The mean is over steps, up to this checkpoint."
    )
    return f"{text}\n\n{_table(['ability', 'final weight', 'mean weight'], rows)}"


def _metrics(history: History, step: int) -> str:
    summary = history.summary or measured(history)
    kinds, rows = test_metrics(summary), []
    for ability, record in summary["abilities"].items():
        cells = [
            with_error(record[f"{name}_{when}"], record[f"{name}_stderr_{when}"], unit)
            for name, _, unit in kinds
            for when in ("before", "after")
        ]
        rows.append([ability, *cells, _count(record.get("test_examples"))])
    head = ["ability"]
    head += [f"{label} {when}" for _, label, _ in kinds for when in ("before", "after")]
    head.append("examples")
    note = "Loss in nats per response token, ± standard error over examples."
    if len(kinds) > 2:
        note += " Generated: replies that were verified, code by running its tests."
    if history.summary is None:
        note += " The run has not ended: nothing after training was measured."
    elif step != summary["num_steps"]:
        note += (
            f" After: at the end of the run, step {summary['num_steps']}; this "
            f"checkpoint, of step {step}, was not tested."
        )
    return f"{_table(head, rows)}\n\n{note}"


def _origin(
    history: History, trained: Trained, exported: Exported, command: str
) -> str:
    found = exported.divergence
    lines = [f"- config hash `{config_hash(history.config)}`"]
    if trained.base is not None:
        lines.append(f"- base `{trained.base.source}`")
        lines.append(f"- hash of its weights `{trained.base.content_hash}`")
    if history.summary is not None:
        versions = history.summary["versions"].items()
        lines.append(
            "- " + ", ".join(f"{name} {version}" for name, version in versions)
        )
    lines.append(
        f"- read back and compared with the model of the run: KL {found.mean:.2g} nats "
        f"per token, at most {found.max:.2g}, over {found.tokens:,} tokens"
    )
    lines += [f"- exported by `{command}`"] if command else []
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
