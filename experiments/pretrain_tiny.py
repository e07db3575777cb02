"""Pretrains dcft-tiny, the small base model of this project, from nothing.

    python -m experiments.pretrain_tiny --hours 2

Run it again after an interruption: it goes on from its latest checkpoint. The number of
steps is settled at the first start, from the speed measured there. `--smoke` does all
of it in less than a minute, on a few generated documents and without downloads.
"""

import argparse
import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import base, quickstart
from dcft_jax import sharding
from dcft_jax.data.atomic_write import atomic_folder, atomic_write
from dcft_jax.models import ModelConfig, Params, load_pretrained, save_pretrained
from dcft_jax.training.optimizer import make_optimizer
from experiments import tiny_rows, tiny_training
from experiments.tiny_card import source_table, write_card
from experiments.tiny_corpus import build_corpus, cache_folder, held_out_examples
from experiments.tiny_rows import Corpus
from experiments.tiny_sources import sources
from experiments.tiny_training import RULES, Run

# Sources of --smoke: nothing has to be downloaded for them.
_LOCAL = ("python_reference", "number_lines", "number_questions")
_PLAN = "plan.json"


def settings(smoke: bool) -> ConfigDict:
    """All that decides what is trained, but for the number of steps."""
    config = base.get_config()
    config.data.seq_len = 256
    config.tokenizer.vocab_size = 4096
    config.mesh.cpu_devices = 2  # faster than one of two cores, for products this small
    # Qwen3's architecture: that of the quickstart, which has normalised queries too.
    config.model.update(
        num_layers=6, width=192, hidden=576, num_heads=6, num_kv_heads=2, head_dim=32
    )
    # Recomputing activations is faster than reading them back from memory.
    config.model.update(qk_norm=True, compute_dtype="float32", remat="full")
    config.optimizer.update(
        learning_rate=3e-3, warmup_steps=100, weight_decay=0.1, schedule="wsd", b2=0.99
    )
    config.tiny = ConfigDict(
        dict(
            corpus_scale=1.0,
            tokenizer_chars=30_000_000,
            held_out_rows=24,  # of each source
            rows_per_step=16,
            speed_steps=20,
            evaluations=20,
            save_every=200,
            log_every=20,
        )
    )
    if smoke:
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    config.data.seq_len = 64
    config.tokenizer.vocab_size = 512
    config.mesh.cpu_devices = 0
    config.model.update(num_layers=2, width=32, hidden=64, num_heads=2, num_kv_heads=1)
    config.model.head_dim = 16
    config.optimizer.update(learning_rate=1e-2, warmup_steps=5)
    config.tiny.update(corpus_scale=0.02, held_out_rows=8, speed_steps=2)
    config.tiny.update(evaluations=3, save_every=10, log_every=5)


def load_corpus(config: ConfigDict, folder: Path, smoke: bool) -> Corpus:
    """Builds the corpus in `folder`, unless it is there."""
    if not tiny_rows.has_corpus(folder):
        # Also in a smoke test: the real splits, not smaller ones.
        exam = quickstart.get_config()
        chosen = sources(cache_folder(exam), config.tiny.corpus_scale)
        chosen = [s for s in chosen if not smoke or s.name in _LOCAL]
        print("reading what the quickstart holds out, then the sources", flush=True)
        portions = build_corpus(chosen, held_out_examples(exam))
        print("training the tokenizer", flush=True)
        tokenizer = tiny_rows.train_corpus_tokenizer(
            portions,
            config.tokenizer.vocab_size,
            config.tiny.tokenizer_chars,
            tiny_rows.tokenizer_path(folder),
        )
        tiny_rows.write_corpus(
            portions,
            tokenizer,
            folder,
            length=config.data.seq_len,
            held_out_rows=config.tiny.held_out_rows,
            seed=config.data.seed,
        )
    return tiny_rows.read_corpus(folder)


def make_run(config: ConfigDict, corpus: Corpus, num_steps: int) -> Run:
    return Run(
        model=ModelConfig.from_config(config.model, corpus.tokenizer.vocab_size, RULES),
        optimizer=make_optimizer(config.optimizer, num_steps),
        rows_per_step=config.tiny.rows_per_step,
        num_steps=num_steps,
        eval_every=max(1, num_steps // config.tiny.evaluations),
        save_every=config.tiny.save_every,
        log_every=config.tiny.log_every,
        seed=config.run.seed,
    )


def planned_steps(
    config: ConfigDict, corpus: Corpus, workdir: Path, hours: float, steps: int
) -> int:
    """Of the first start; measured there if `steps` is 0.

    Raises:
        ValueError: the folder is of a run with other settings.
    """
    path, asked = workdir / _PLAN, json.loads(config.to_json())
    if path.is_file():
        plan = json.loads(path.read_text())
        if plan["settings"] != asked or steps not in (0, plan["num_steps"]):
            raise ValueError(
                f"--workdir {workdir} holds a run of {plan['num_steps']} steps with "
                "other settings; choose another folder, or remove it"
            )
        return plan["num_steps"]
    if not steps:
        trial = make_run(config, corpus, 1000)
        speed = tiny_training.tokens_per_second(trial, corpus, config.tiny.speed_steps)
        step_tokens = config.tiny.rows_per_step * config.data.seq_len
        # A twentieth is left for evaluations, checkpoints and the export.
        steps = max(1, math.floor(0.95 * hours * 3600 * speed / step_tokens))
        print(f"{speed:.0f} tokens/s: {steps} steps take {hours} hours", flush=True)
    atomic_write(path, json.dumps(dict(num_steps=steps, settings=asked), indent=1))
    return steps


def export(run: Run, corpus: Corpus, params: Params, history: list, folder: Path):
    """Writes the model in bfloat16 and its card, and measures what it wrote.

    Raises:
        RuntimeError: read back, the model is worse than the one that was trained.
    """
    model = dataclasses.replace(run.model, param_dtype="bfloat16")
    tokenizer = corpus.tokenizer
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    length = corpus.train_NL.shape[1] - 1
    ids = dict(bos_token_id=tokenizer.bos_id, pad_token_id=tokenizer.pad_id)
    ids["eos_token_id"] = tokenizer.chat.end_id
    shutil.rmtree(folder, ignore_errors=True)  # an earlier export
    with atomic_folder(folder) as files:
        save_pretrained(model, rounded, files, max_length=length, extra=ids)
        tokenizer.save(files)
        exported = _measure_files(run, corpus, files)
        trained = history[-1]["bits_per_byte"]
        if not sum(exported.values()) <= 1.02 * sum(trained.values()):
            raise RuntimeError(f"{files}: {exported} bits per byte, not {trained}")
        facts = _facts(run, corpus, history, files)
        reports = corpus.reports
        write_card(
            files, facts=facts, reports=reports, history=history, exported=exported
        )


def _measure_files(run: Run, corpus: Corpus, folder: Path) -> dict[str, float]:
    loaded = load_pretrained(
        folder, jax.sharding.get_mesh(), RULES, compute_dtype="float32"
    )
    if loaded.tokenizer.content_hash != corpus.tokenizer.content_hash:
        raise RuntimeError(f"{folder}: the tokenizer is not that of the corpus")
    read_back = dataclasses.replace(run, model=loaded.config)
    _, evaluate = tiny_training.compile_run(read_back, corpus)
    return tiny_training.bits_per_byte(
        evaluate, corpus, loaded.params, run.rows_per_step
    )


def _facts(run: Run, corpus: Corpus, history: list, folder: Path) -> dict[str, Any]:
    model, length = run.model, corpus.train_NL.shape[1] - 1
    size = (folder / "model.safetensors").stat().st_size
    tokens = history[-1]["tokens"]
    params = jax.eval_shape(lambda: tiny_training.init_state(run).params)
    count = sum(x.size for x in jax.tree.leaves(params))
    return {
        "parameters": f"{count:,}, tied embeddings",
        "decoder": f"{model.num_layers} layers, width {model.width}, hidden "
        f"{model.hidden}, {model.num_heads} heads, {model.num_kv_heads} of keys and "
        "values (Qwen3)",
        "tokenizer": f"SentencePiece BPE, {model.vocab_size} pieces",
        "file": f"{size / 1e6:.1f} MB, bfloat16",
        "training": f"{run.num_steps:,} steps of {run.rows_per_step} rows of {length} "
        f"tokens: {tokens / 1e6:.1f} million tokens, "
        f"{tokens / corpus.train_NL[:, 1:].size:.2f} epochs",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/dcft-tiny"))
    parser.add_argument("--out", type=Path, default=Path("models/dcft-tiny"))
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=0, help="instead of --hours")
    parser.add_argument("--stop-at", type=int, help="end at this step, to go on later")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args(arguments)
    if given.out.exists():
        raise FileExistsError(f"--out {given.out} exists; remove it or name another")
    if not given.hours > 0 or given.steps < 0:
        raise ValueError(
            f"--hours {given.hours} must be positive, --steps {given.steps} must not "
            "be negative"
        )
    config = settings(given.smoke)
    sharding.set_cpu_devices(config.mesh.cpu_devices)
    given.workdir.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus(config, given.workdir / "corpus", given.smoke)
    print(source_table(corpus.reports), flush=True)
    with jax.set_mesh(tiny_training.make_mesh()):
        steps = given.steps or (30 if given.smoke else 0)
        steps = planned_steps(config, corpus, given.workdir, given.hours, steps)
        run = make_run(config, corpus, steps)
        stop_at = None if given.stop_at is None else min(given.stop_at, steps)
        params, history = tiny_training.train(run, corpus, given.workdir, stop_at)
        if stop_at is not None and stop_at < steps:
            return
        export(run, corpus, params, history, given.workdir / "export")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(given.workdir / "export", given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
