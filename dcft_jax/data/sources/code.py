"""How an example of code is written: a function head to complete with its body."""

import textwrap

from dcft_jax.data.example import Example
from dcft_jax.data.sources.levels import code_level


def complete_function(prompt: str, body: str) -> str:
    """The source of the function, from its head and docstring and a reply.

    A reply is a body without outer indentation; relative indentation is kept.
    """
    return f"{prompt}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"


def function_example(
    prompt: str,
    body: str,
    *,
    source: str,
    tests: tuple[str, ...],
    single_reference: bool,
    metadata: dict,
) -> Example:
    """`complete_function(prompt, body)` followed by `tests` runs without an error.

    Its difficulty is the number of operations in the body.
    """
    return Example(
        messages=(("user", prompt), ("assistant", body)),
        source=source,
        single_reference=single_reference,
        tests=tests,
        metadata={**metadata, "difficulty": code_level(body)},
    )
