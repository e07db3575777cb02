"""Four situations a mixture can be in, as configs of small models on one core.

Each function returns the config with the prior of its situation. The data do not
depend on the seed of a run, so they are read and packed once for each setting, and
differences between seeds are those of initial parameters and of the order of rows.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from configs.base import ability
from experiments.noise_source import write_noise

NOISE = "noise"
_CONSTRAINTS = ("repeat", "reverse_words", "first_and_last", "pick_word")
# Prompts of the three abilities decide their replies: the entropy is 0.
_ENTROPY = 0.0
_HELD_OUT = dict(mix_val=96, test=256)


def balanced() -> ConfigDict:
    """About as many rows of each ability, no row twice: nothing to win is expected."""
    return _config(sums=8000, functions=4000, instructions=5000)


def unequal() -> ConfigDict:
    """Under uniform weights, two abilities are repeated some 4 and 10 times."""
    return _config(sums=8000, functions=800, instructions=400)


def bad_prior() -> ConfigDict:
    """The data of `balanced`, with four fifths of the weight on one ability."""
    config = balanced()
    config.mixture.prior = "given"
    for name, weight in (("maths", 0.8), ("code", 0.1), ("general", 0.1)):
        config.abilities[name].weight = weight
    return config


def noisy() -> ConfigDict:
    """`balanced` and a fourth ability that cannot be learnt, nobody knows why."""
    config = balanced()
    path = write_noise(Path(config.data.cache_dir) / "experiments", examples=3000)
    rows = dict(kind="jsonl", path=str(path), single_reference=True)
    # Its reference loss is unknown. To give its entropy would be to give it away.
    config.abilities[NOISE] = ability({"digits": rows}, weight=0.25, **_HELD_OUT)
    return config


SETTINGS: dict[str, Callable[[], ConfigDict]] = {
    "balanced": balanced,
    "unequal": unequal,
    "bad_prior": bad_prior,
    "noisy": noisy,
}


def learnable(abilities: Iterable[str]) -> list[str]:
    return [name for name in abilities if name != NOISE]


def _config(sums: int, functions: int, instructions: int) -> ConfigDict:
    config = base.get_config()
    two_numbers = dict(min_terms=2, max_terms=2, min_digits=1, max_digits=2)
    params = dict(
        **two_numbers,
        operators=("+",),
        allow_parentheses=False,
        allow_negation=False,
    )
    sources = dict(
        maths=dict(
            kind="reasoning_gym", task="basic_arithmetic", examples=sums, params=params
        ),
        code=dict(kind="micro_functions", examples=functions),
        general=dict(
            kind="instructions", examples=instructions, constraints=_CONSTRAINTS
        ),
    )
    for name, source in sources.items():
        config.abilities[name] = ability(
            {"generated": source}, reference_loss=_ENTROPY, **_HELD_OUT
        )
    return _small(config)


def _small(config: ConfigDict) -> ConfigDict:
    """A model of 0.37 M parameters and 330,000 tokens: half a minute on one core."""
    config.run.update(num_steps=320, eval_every=20, save_every=320, log_every=10)
    config.run.keep_checkpoints = 1
    config.data.update(seq_len=128, num_slots=8, rows_per_slot=1)
    config.tokenizer.vocab_size = 640
    config.model.update(
        num_layers=3, width=96, hidden=256, num_heads=4, num_kv_heads=2, head_dim=24
    )
    config.model.update(qk_norm=True, compute_dtype="float32", remat="full")
    config.optimizer.update(
        learning_rate=4e-3, warmup_steps=30, weight_decay=0.01, schedule="wsd", b2=0.99
    )
    config.conflict.engine = "lagged"  # a fifth faster than "materialize" here
    config.logging.tensorboard = False
    return config
