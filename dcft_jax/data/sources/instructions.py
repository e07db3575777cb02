"""Instructions whose constraint a program can check, each with one right reply."""

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from ml_collections import ConfigDict

from dcft_jax.data.example import Example, SourceData
from dcft_jax.data.sources.fields import source_fields
from dcft_jax.data.sources.generated import draw_splits
from dcft_jax.data.sources.words import WORDS

# (instruction, reply, arguments of the constraint). The words a constraint works on
# are always among the arguments, so that a checker needs nothing else.
Task = tuple[str, str, dict[str, Any]]

_ORDINALS = ("first", "second", "third", "fourth")


def instructions(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str = "fail"
) -> SourceData:
    """Instructions in the manner of IFEval (Zhou et al., arXiv:2311.07911).

    Metadata holds the name of the constraint, its arguments, and as difficulty how many
    things there are to keep in mind: the words and the other arguments. Fields of
    `source`: `examples`, the number of training examples; `constraints`, names from
    `CONSTRAINTS`, or empty for all.

    Raises:
        ValueError: for an unknown constraint, or if `examples` or `held_out` exceed
            the distinct prompts.
    """
    fields = source_fields(source, required=("examples",), constraints=())
    names = tuple(fields.constraints)
    unknown = sorted(set(names) - CONSTRAINTS.keys())
    if unknown:
        raise ValueError(
            f"constraints: unknown {', '.join(unknown)}; choose from "
            f"{', '.join(CONSTRAINTS)}, or leave it empty for all"
        )
    return draw_splits(
        lambda first, _: lambda offset: instruction(first + offset, names),
        examples=fields.examples,
        held_out=held_out,
        seed=seed,
        name="instructions",
    )


def instruction(index: int, names: Sequence[str] = ()) -> Example:
    """The instruction of an index; every named constraint (or each) equally likely."""
    rng = Random(f"instructions/{index}")
    constraint = rng.choice(names or tuple(CONSTRAINTS))
    prompt, reply, arguments = CONSTRAINTS[constraint](rng)
    return Example(
        messages=(("user", prompt), ("assistant", reply)),
        source="instructions",
        single_reference=True,
        metadata={
            "constraint": constraint,
            "arguments": arguments,
            "difficulty": len(arguments["words"]) + len(arguments) - 1,
        },
    )


def _words(rng: Random, fewest: int = 2, most: int = 4) -> list[str]:
    return rng.sample(WORDS, rng.randint(fewest, most))


def _upper_case(rng: Random) -> Task:
    words = _words(rng)
    text = " ".join(words)
    return f"Write in upper case: {text}", text.upper(), {"words": words}


def _capitalise(rng: Random) -> Task:
    words = _words(rng)
    reply = " ".join(word.capitalize() for word in words)
    return f"Capitalise each word: {' '.join(words)}", reply, {"words": words}


def _lower_case(rng: Random) -> Task:
    words = _words(rng)
    text = " ".join(words)
    return f"Write in lower case: {text.upper()}", text, {"words": words}


def _repeat(rng: Random) -> Task:
    words, times = _words(rng, 2, 2), rng.randint(2, 4)
    text = " ".join(words)
    arguments = {"words": words, "times": times}
    return f"Repeat {times} times: {text}", " ".join([text] * times), arguments


def _reverse_words(rng: Random) -> Task:
    words = _words(rng)
    prompt = f"Write the words in reverse order: {' '.join(words)}"
    return prompt, " ".join(reversed(words)), {"words": words}


def _sort_words(rng: Random) -> Task:
    words = _words(rng, 2, 3)
    prompt = f"Sort the words from a to z: {' '.join(words)}"
    return prompt, " ".join(sorted(words)), {"words": words}


def _first_and_last(rng: Random) -> Task:
    words = _words(rng, 3, 5)
    prompt = f"Answer with the first and last word of: {' '.join(words)}"
    return prompt, f"{words[0]} {words[-1]}", {"words": words}


def _pick_word(rng: Random) -> Task:
    words = _words(rng, 3, 4)
    position = rng.randrange(len(words))
    prompt = f"Answer with the {_ORDINALS[position]} word of: {' '.join(words)}"
    return prompt, words[position], {"words": words, "position": position + 1}


def _bullets(rng: Random) -> Task:
    words = _words(rng)
    prompt = f"Write {len(words)} bullet points: {' '.join(words)}"
    return prompt, "\n".join(f"- {word}" for word in words), {"words": words}


def _numbered(rng: Random) -> Task:
    words = _words(rng)
    prompt = f"Write a numbered list: {' '.join(words)}"
    reply = "\n".join(f"{i}. {word}" for i, word in enumerate(words, 1))
    return prompt, reply, {"words": words}


def _ends_with(rng: Random) -> Task:
    *words, end = _words(rng, 3, 4)
    prompt = f'Repeat the words and end with "{end}": {" ".join(words)}'
    return prompt, " ".join([*words, end]), {"words": words, "end": end}


def _starts_with(rng: Random) -> Task:
    *words, start = _words(rng, 3, 4)
    prompt = f'Start with "{start}" and repeat the words: {" ".join(words)}'
    return prompt, " ".join([start, *words]), {"words": words, "start": start}


def _commas(rng: Random) -> Task:
    words = _words(rng)
    prompt = f"Put commas between the words: {' '.join(words)}"
    return prompt, ", ".join(words), {"words": words}


def _json_list(rng: Random) -> Task:
    words = _words(rng)
    return (
        f"Write as a JSON list: {' '.join(words)}",
        json.dumps(words),
        {"words": words},
    )


def _quotes(rng: Random) -> Task:
    words = _words(rng)
    text = " ".join(words)
    return f"Wrap in double quotes: {text}", f'"{text}"', {"words": words}


def _leave_out(rng: Random) -> Task:
    words = _words(rng, 3, 4)
    word = rng.choice(words)
    prompt = f'Repeat without the word "{word}": {" ".join(words)}'
    reply = " ".join(w for w in words if w != word)
    return prompt, reply, {"words": words, "word": word}


def _replace(rng: Random) -> Task:
    *words, new = _words(rng, 3, 4)
    old = rng.choice(words)
    prompt = f'Replace "{old}" with "{new}": {" ".join(words)}'
    reply = " ".join(new if word == old else word for word in words)
    return prompt, reply, {"words": words, "old": old, "new": new}


def _count_words(rng: Random) -> Task:
    words = _words(rng, 2, 6)
    prompt = f"How many words are there? {' '.join(words)}"
    return prompt, str(len(words)), {"words": words}


CONSTRAINTS: Mapping[str, Callable[[Random], Task]] = {
    "upper_case": _upper_case,
    "lower_case": _lower_case,
    "capitalise": _capitalise,
    "repeat": _repeat,
    "reverse_words": _reverse_words,
    "sort_words": _sort_words,
    "first_and_last": _first_and_last,
    "pick_word": _pick_word,
    "bullets": _bullets,
    "numbered": _numbered,
    "ends_with": _ends_with,
    "starts_with": _starts_with,
    "commas": _commas,
    "json_list": _json_list,
    "quotes": _quotes,
    "leave_out": _leave_out,
    "replace": _replace,
    "count_words": _count_words,
}
