"""Three small abilities for a model trained from nothing on a CPU in minutes.

configs/quickstart.py has the same for a model that has read something before.
"""

from ml_collections import ConfigDict

from configs import base
from configs.base import ability

# Reference losses below are rough: the share of response tokens that the hard members
# have, times some 2 to 4 nats that such a small model will not get below there.

# Those that move whole words; changing letters takes longer than five minutes.
_CONSTRAINTS = (
    *("repeat", "reverse_words", "first_and_last", "pick_word"),
    *("bullets", "starts_with", "commas", "leave_out"),
)


def _reasoning_gym(task: str, examples: int, **fields) -> dict:
    return dict(kind="reasoning_gym", task=task, examples=examples, **fields)


def _maths() -> ConfigDict:
    two_numbers = dict(min_terms=2, max_terms=2, min_digits=1, max_digits=2)
    sums = dict(
        **two_numbers,
        operators=("+",),
        allow_parentheses=False,
        allow_negation=False,
    )
    equations = dict(min_terms=2, max_terms=2, min_value=1, max_value=20)
    return ability(
        dict(
            # "Calculate 57 + 33."; there are some 9,800 of these.
            sums=_reasoning_gym("basic_arithmetic", 6000, params=sums),
            # "Solve for m: 26*m = 260", and word problems with the steps of their
            # solution: the hard members.
            equations=_reasoning_gym("simple_equations", 500, params=equations),
            word_problems=_reasoning_gym(
                "gsm_symbolic", 100, response="worked", max_chars=320
            ),
        ),
        weight=0.45,
        reference_loss=0.1,
    )


def _code(cache_dir: str) -> ConfigDict:
    return ability(
        dict(
            micro=dict(kind="micro_functions", examples=8000),
            # Real library functions: the hard members.
            library=dict(kind="doctest_functions", max_chars=300, cache_dir=cache_dir),
        ),
        weight=0.25,
        reference_loss=0.1,
    )


def _general() -> ConfigDict:
    spelling = dict(min_word_len=3, max_word_len=5)
    # Every suitable topic but coding, whose replies are long.
    topics = (
        *("ai", "botprofile", "computers", "conversations", "emotion", "food"),
        *("greetings", "health", "literature", "science", "tech_support", "trivia"),
    )
    return ability(
        dict(
            instructions=dict(
                kind="instructions", examples=8000, constraints=_CONSTRAINTS
            ),
            # "Spell this word backward (example: sun -> nus): neon"
            spelling=_reasoning_gym("spell_backward", 1000, params=spelling),
            # Conversations with many right replies: the hard members.
            chat=dict(kind="chatterbot", topics=topics, max_chars=220),
        ),
        weight=0.3,
        reference_loss=0.4,
    )


def get_config(only: str = "") -> ConfigDict:
    """All three abilities, or one: `--config configs/from_scratch.py:maths`."""
    config = base.get_config()
    abilities = dict(
        maths=_maths(),
        code=_code(config.data.cache_dir),
        general=_general(),
    )
    config.abilities.update({only: abilities[only]} if only else abilities)
    config.run.update(num_steps=850, eval_every=50, save_every=250, log_every=10)
    # 8 slots of one row of 192 tokens: some 60 examples a step. Two CPU devices of one
    # core each are faster than one of two, for matrices this small; each has half of
    # the slots. Any 1, 2, 4 or 8 devices will do.
    config.data.update(seq_len=192, num_slots=8, rows_per_slot=1)
    config.mesh.update(ability=-1, data=1, cpu_devices=2)
    config.tokenizer.vocab_size = 1536
    # Sums take the most examples by far, functions the fewest.
    config.mixture.prior = "given" if not only else "uniform"
    config.model.update(
        num_layers=4, width=128, hidden=384, num_heads=4, num_kv_heads=2, head_dim=32
    )
    # Replies are also generated, functions run against their tests in a sandbox if
    # this machine has one.
    config.evaluation.update(
        generate_every=6, mix_val_prompts=48, test_prompts=192, execute_code=True
    )
    # Two of three parts of the mix-val rows at a time: evaluation takes 3 % of a run.
    config.mixture.mix_val_blocks = 3
    # Normalised queries and keys: sums are learnt in every seed, not in two of three.
    config.model.qk_norm = True
    # Recomputing activations is faster than reading them back from memory here.
    config.model.update(compute_dtype="float32", remat="full")
    config.optimizer.update(
        learning_rate=3e-3, warmup_steps=50, weight_decay=0.01, schedule="wsd", b2=0.99
    )
    return config
