"""Questions with known answers from the generators of Reasoning Gym."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from dcft_jax.data.example import Example, SourceData
from dcft_jax.data.sources.fields import source_fields
from dcft_jax.data.sources.generated import draw_splits

# Generators that give no reference answer (0.1.25).
_NO_ANSWER = {
    "boxnet",
    "graph_color",
    "propositional_logic",
    "rubiks_cube",
    "rush_hour",
}

# Families that are refused although they give an answer: their scorer evaluates the
# answer as Python, their generator executes third-party programs, the scorer accepts
# any text, or the family is a container of others. Nothing here calls a scorer, but a
# family trained on is one somebody will want to score.
_REFUSED = {
    "binary_matrix": "its scorer evaluates answers as Python",
    "codeio": "its generator executes bundled third-party programs",
    "composite": "it is a mixture of other families; name those as sources instead",
    "countdown": "its scorer evaluates answers as Python",
    "game_of_life_halting": "its scorer accepts any answer",
    "intermediate_integration": "its scorer evaluates answers as Python",
    "n_queens": "its scorer evaluates answers as Python",
    "polynomial_multiplication": "its scorer evaluates answers as Python",
    "puzzle24": "its scorer evaluates answers as Python",
    "simple_integration": "its scorer evaluates answers as Python",
    "spiral_matrix": "its scorer evaluates answers as Python",
    "string_insertion": "its scorer evaluates answers as Python",
}

# Families with exactly one right reply, written in exactly one way.
_SINGLE_REFERENCE = {
    "base_conversion",
    "basic_arithmetic",
    "bitwise_arithmetic",
    "caesar_cipher",
    "chain_sum",
    "count_bits",
    "count_primes",
    "decimal_chain_sum",
    "fraction_simplification",
    "gcd",
    "lcm",
    "leg_counting",
    "letter_counting",
    "products",
    "simple_equations",
    "spell_backward",
    "word_sequence_reversal",
    "word_sorting",
}


def reasoning_gym(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str = "fail"
) -> SourceData:
    """Examples of one Reasoning Gym family (Stojanovski et al., arXiv:2505.24760).

    Fields of `source`: `task`, the family; `examples`, the number of training examples;
    `params`, settings of the family; `response`, "answer" for the bare answer or
    "worked" for the solution steps that end in it, where the family gives them;
    `max_chars`, the longest prompt and reply together to keep, 0 for any.

    Raises:
        ValueError: for an unknown, refused or answerless family, a wrong parameter, or
            a family without worked solutions if these are asked for.
    """
    fields = source_fields(
        source,
        required=("task", "examples"),
        params={},
        response="answer",
        max_chars=0,
    )
    params = dict(fields.params)
    if reserved := {"seed", "size"} & set(params):
        raise ValueError(
            f"params must not set {sorted(reserved)}; data.seed and examples do"
        )
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}
    if fields.response not in ("answer", "worked"):
        raise ValueError(f"response={fields.response!r} must be 'answer' or 'worked'")
    return draw_splits(
        lambda first, draws: _generator(
            fields.task, {**params, "seed": first, "size": draws}, fields.response
        ),
        examples=fields.examples,
        held_out=held_out,
        seed=seed,
        name=f"reasoning_gym {fields.task}",
        max_chars=fields.max_chars,
    )


def _generator(
    task: str, params: dict[str, Any], response: str
) -> Callable[[int], Example]:
    dataset = _dataset(task, params)

    def make(offset: int) -> Example:
        # Some families print while they generate.
        with contextlib.redirect_stdout(io.StringIO()):
            item = dataset[offset]
        return _example(task, item, response)

    return make


def _dataset(task: str, params: dict[str, Any]) -> Any:
    if task in _NO_ANSWER:
        raise ValueError(f"reasoning_gym family {task!r} gives no reference answer")
    if task in _REFUSED:
        raise ValueError(f"reasoning_gym family {task!r} is refused: {_REFUSED[task]}")
    # Takes seconds and prints, so only where it is needed.
    with contextlib.redirect_stdout(io.StringIO()):
        from reasoning_gym.factory import DATASETS, create_dataset
    if task not in DATASETS:
        raise ValueError(
            f"unknown reasoning_gym family {task!r}; there are {', '.join(DATASETS)}"
        )
    try:
        return create_dataset(task, **params)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"reasoning_gym {task}, `params` {params}: {error}") from error


def _example(task: str, item: dict[str, Any], response: str) -> Example:
    answer = item["answer"]
    if answer is None:
        raise ValueError(f"reasoning_gym family {task!r} gives no reference answer")
    reply = str(answer) if response == "answer" else _worked(task, item)
    return Example(
        messages=(("user", item["question"].strip()), ("assistant", reply.strip())),
        source=task,
        # A worked solution is one of many right ones.
        single_reference=response == "answer" and task in _SINGLE_REFERENCE,
        metadata={"answer": str(answer), "licence": "Apache-2.0"},
    )


def _worked(task: str, item: dict[str, Any]) -> str:
    steps = item["metadata"].get("answer_cot")
    if not steps:
        raise ValueError(
            f"reasoning_gym family {task!r} has no worked solutions; "
            "set `response` to 'answer'"
        )
    return steps
