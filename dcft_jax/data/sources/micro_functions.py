"""Small Python functions from templates, with hidden asserts."""

from random import Random

from ml_collections import ConfigDict

from dcft_jax.data.example import Example, SourceData
from dcft_jax.data.sources.code import function_example
from dcft_jax.data.sources.fields import source_fields
from dcft_jax.data.sources.generated import draw_splits
from dcft_jax.data.sources.micro_templates import (
    FAMILIES,
    LARGEST_CONSTANT,
    LETTERS,
    Constants,
    Family,
    Template,
)

TESTS_PER_FUNCTION = 4


def micro_functions(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str = "fail"
) -> SourceData:
    """Functions of one to three lines to write from their head and docstring.

    The reply is the body without outer indentation. Constants and argument names are
    drawn, so held-out prompts are combinations that training did not show. Field of
    `source`: `examples`, the number of training examples.

    Raises:
        ValueError: if `examples` or `held_out` exceed the distinct prompts.
    """
    fields = source_fields(source, required=("examples",))
    return draw_splits(
        lambda first, _: lambda offset: micro_function(first + offset),
        examples=fields.examples,
        held_out=held_out,
        seed=seed,
        name="micro_functions",
    )


def micro_function(index: int) -> Example:
    """The function of an index; every template is equally likely."""
    rng = Random(f"micro_functions/{index}")
    family, template = rng.choice(
        [(family, template) for family in FAMILIES for template in family.templates]
    )
    names = rng.choice(family.names)
    constants = _constants(rng)
    words = {**dict(zip(family.slots, names, strict=True)), **constants}
    docstring = template.docstring.format(**words)
    prompt = f'def f({", ".join(names)}):\n    """Return {docstring}."""'
    return function_example(
        prompt,
        template.body.format(**words),
        source="micro_functions",
        tests=_tests(rng, family, template, constants),
        single_reference=True,
        metadata={"entry_point": "f", "template": template.docstring},
    )


def _constants(rng: Random) -> Constants:
    k, m = sorted(rng.sample(range(2, LARGEST_CONSTANT + 1), 2))
    # Four different letters, so that replacing one pair by the other changes a text.
    letters = "".join(rng.sample(LETTERS, 4))
    u, v = letters[:2], letters[2:]
    return {"k": k, "m": m, "u": u, "v": v}


def _tests(
    rng: Random, family: Family, template: Template, constants: Constants
) -> tuple[str, ...]:
    """Asserts on distinct arguments.

    Their values neither are all the same nor all equal the first argument, so no
    constant body and no body that hands its argument back can pass.
    """
    cases: dict[str, str] = {}
    echoes: set[str] = set()
    while len(cases) < TESTS_PER_FUNCTION:
        arguments = family.arguments(rng, constants)
        call = f"f({', '.join(map(repr, arguments))})"
        cases[call] = repr(template.answer(*arguments, constants))
        if cases[call] == repr(arguments[0]):
            echoes.add(call)
        if len(cases) == TESTS_PER_FUNCTION and (
            len(set(cases.values())) == 1 or len(echoes) == len(cases)
        ):
            echoes.discard(call)
            del cases[call]
    return tuple(f"assert {call} == {value}" for call, value in cases.items())
