"""Questions with known answers from the generators of Reasoning Gym."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from dcft_jax.data.example import Example, SourceData
from dcft_jax.data.sources.fields import source_fields
from dcft_jax.data.sources.generated import draw_splits
from dcft_jax.data.sources.levels import mean_position

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
    `max_chars`, the longest prompt and reply together to keep, 0 for any; `levels`,
    levels of the family's curriculum, drawn from in turn.

    The difficulty of an example is its level; without `levels` it is where the settings
    that its family notes down for it (number of terms, of digits, ...) lie between the
    least and the largest that `params` allow, from 0 to 1, if it notes any.

    Raises:
        ValueError: for an unknown, refused or answerless family, a wrong parameter or
            level, or a family without curriculum or worked solutions if these are
            asked for.
    """
    fields = source_fields(
        source,
        required=("task", "examples"),
        params={},
        response="answer",
        max_chars=0,
        levels=(),
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
            fields.task,
            {**params, "seed": first, "size": draws},
            fields.response,
            tuple(fields.levels),
        ),
        examples=fields.examples,
        held_out=held_out,
        seed=seed,
        name=f"reasoning_gym {fields.task}",
        max_chars=fields.max_chars,
    )


def _generator(
    task: str, params: dict[str, Any], response: str, levels: tuple[int, ...]
) -> Callable[[int], Example]:
    _check_task(task)
    settings = [_at_level(task, level) for level in levels] or [{}]
    datasets = [_dataset(task, {**chosen, **params}) for chosen in settings]

    def make(offset: int) -> Example:
        nth = offset % len(datasets)
        # Some families print while they generate.
        with contextlib.redirect_stdout(io.StringIO()):
            item = datasets[nth][offset]
        level = levels[nth] if levels else _item_level(item)
        return _example(task, item, response, level)

    return make


def _check_task(task: str) -> None:
    if task in _NO_ANSWER:
        raise ValueError(f"reasoning_gym family {task!r} gives no reference answer")
    if task in _REFUSED:
        raise ValueError(f"reasoning_gym family {task!r} is refused: {_REFUSED[task]}")
    # Takes seconds and prints, so only where it is needed.
    with contextlib.redirect_stdout(io.StringIO()):
        from reasoning_gym.factory import DATASETS
    if task not in DATASETS:
        raise ValueError(
            f"unknown reasoning_gym family {task!r}; there are {', '.join(DATASETS)}"
        )


def _at_level(task: str, level: int) -> dict[str, Any]:
    """Settings of one level of the family's curriculum, easier levels left out."""
    from reasoning_gym.coaching.base_curriculum import (
        DefaultCurriculumContext,
        RangeAttributeMode,
    )
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(task):
        raise ValueError(
            f"reasoning_gym family {task!r} has no curriculum; leave out `levels`"
        )
    curriculum = create_curriculum(task)
    highest = max(len(a.levels) for a in curriculum.attributes.values()) - 1
    if not isinstance(level, int) or not 0 <= level <= highest:
        raise ValueError(
            f"levels: {level!r} is no level of reasoning_gym family {task!r}, whose "
            f"curriculum has the levels 0 to {highest}"
        )
    curriculum.set_global_level(level)
    context = DefaultCurriculumContext(mode=RangeAttributeMode.UPPER_BOUND)
    return dict(vars(curriculum.generate_configuration(context=context)))


def _item_level(item: dict[str, Any]) -> float | None:
    ranges = item["metadata"].get("difficulty")
    return mean_position(item["metadata"], ranges) if isinstance(ranges, dict) else None


def _dataset(task: str, params: dict[str, Any]) -> Any:
    from reasoning_gym.factory import create_dataset

    try:
        return create_dataset(task, **params)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"reasoning_gym {task}, `params` {params}: {error}") from error


def _example(
    task: str, item: dict[str, Any], response: str, level: float | None
) -> Example:
    answer = item["answer"]
    if answer is None:
        raise ValueError(f"reasoning_gym family {task!r} gives no reference answer")
    reply = str(answer) if response == "answer" else _worked(task, item)
    return Example(
        messages=(("user", item["question"].strip()), ("assistant", reply.strip())),
        source=task,
        # A worked solution is one of many right ones.
        single_reference=response == "answer" and task in _SINGLE_REFERENCE,
        metadata={
            "answer": str(answer),
            "licence": "Apache-2.0",
            **({} if level is None else {"difficulty": level}),
        },
    )


def _worked(task: str, item: dict[str, Any]) -> str:
    steps = item["metadata"].get("answer_cot")
    if not steps:
        raise ValueError(
            f"reasoning_gym family {task!r} has no worked solutions; "
            "set `response` to 'answer'"
        )
    return steps
