"""The tasks of `micro_functions`: what is asked, the body, and what is right.

A template is `(docstring, body, answer)`. Docstring and body name the arguments
({n}, {a}, {b}, {xs}, {s}), whole-number constants ({k} < {m}) and two-letter string
constants ({u}, {v}). `answer` computes the same in Python from the arguments and the
constants `c`, independently of the body's text, so that a wrong body shows.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LARGEST_CONSTANT = 199

Constants = Mapping[str, Any]


class Template(NamedTuple):
    docstring: str
    body: str
    answer: Callable[..., Any]


class Family(NamedTuple):
    """Templates that take the same arguments.

    `names` are choices of argument names, `arguments` draws values for them that make
    the constants matter.
    """

    slots: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    arguments: Callable[[Random, Constants], tuple]
    templates: tuple[Template, ...]


def _number(rng: Random, c: Constants) -> int:
    """Often near a constant, where comparisons change."""
    near = rng.choice([c["k"], c["m"]]) + rng.randint(-1, 1)
    multiple = c["k"] * rng.randint(-3, 3)
    return rng.choice([c["k"], near, multiple, rng.randint(-300, 300)])


def _one_number(rng: Random, c: Constants) -> tuple:
    return (_number(rng, c),)


def _two_numbers(rng: Random, c: Constants) -> tuple:
    a = rng.randint(-60, 60)
    return rng.choice([(a, c["k"] - a + rng.randint(-1, 1)), (a, _number(rng, c))])


def _numbers(rng: Random, c: Constants) -> tuple:
    return ([_number(rng, c) for _ in range(rng.randint(1, 5))],)


def _string(rng: Random, c: Constants) -> tuple:
    parts = [c["u"], c["v"], *("".join(rng.choices(LETTERS, k=2)) for _ in range(2))]
    return ("".join(rng.choices(parts, k=rng.randint(1, 4))),)


_ONE_NUMBER = (
    Template("{n} plus {k}", "return {n} + {k}", lambda n, c: n + c["k"]),
    Template("{n} minus {k}", "return {n} - {k}", lambda n, c: n - c["k"]),
    Template("{k} minus {n}", "return {k} - {n}", lambda n, c: c["k"] - n),
    Template("{n} times {k}", "return {n} * {k}", lambda n, c: n * c["k"]),
    Template(
        "{n} times {k}, plus {m}",
        "return {n} * {k} + {m}",
        lambda n, c: n * c["k"] + c["m"],
    ),
    Template(
        "{n} divided by {k}, rounded down",
        "return {n} // {k}",
        lambda n, c: (n - n % c["k"]) // c["k"],
    ),
    Template(
        "the remainder of {n} divided by {k}",
        "return {n} % {k}",
        lambda n, c: n - c["k"] * (n // c["k"]),
    ),
    Template("True if {n} is above {k}", "return {n} > {k}", lambda n, c: c["k"] < n),
    Template("True if {n} is below {k}", "return {n} < {k}", lambda n, c: c["k"] > n),
    Template(
        "True if {n} is a multiple of {k}",
        "return {n} % {k} == 0",
        lambda n, c: (n // c["k"]) * c["k"] == n,
    ),
    Template(
        "True if {n} is from {k} to {m}",
        "return {k} <= {n} <= {m}",
        lambda n, c: n in range(c["k"], c["m"] + 1),
    ),
    Template(
        "the larger of {n} and {k}",
        "return max({n}, {k})",
        lambda n, c: n if n > c["k"] else c["k"],
    ),
    Template(
        "the smaller of {n} and {k}",
        "return min({n}, {k})",
        lambda n, c: n if n < c["k"] else c["k"],
    ),
    Template(
        "how far {n} is from {k}",
        "return abs({n} - {k})",
        lambda n, c: max(n, c["k"]) - min(n, c["k"]),
    ),
    Template(
        "{n} limited to the range {k} to {m}",
        "return max({k}, min({n}, {m}))",
        lambda n, c: sorted([c["k"], n, c["m"]])[1],
    ),
    Template(
        "{n} squared plus {k}",
        "return {n} ** 2 + {k}",
        lambda n, c: n * n + c["k"],
    ),
    Template(
        "{k} if {n} is negative, else {n}",
        "return {k} if {n} < 0 else {n}",
        lambda n, c: n if n >= 0 else c["k"],
    ),
    Template(
        "{n} plus {k} if {n} is even, else {n} minus {m}",
        "if {n} % 2 == 0:\n    return {n} + {k}\nreturn {n} - {m}",
        lambda n, c: n - c["m"] if n % 2 else n + c["k"],
    ),
)

_TWO_NUMBERS = (
    Template(
        "the sum of {a} and {b} plus {k}",
        "return {a} + {b} + {k}",
        lambda a, b, c: sum([a, b, c["k"]]),
    ),
    Template(
        "the product of {a} and {b} minus {k}",
        "return {a} * {b} - {k}",
        lambda a, b, c: -(c["k"] - a * b),
    ),
    Template(
        "{a} minus {b}, times {k}",
        "return ({a} - {b}) * {k}",
        lambda a, b, c: a * c["k"] - b * c["k"],
    ),
    Template(
        "the larger of {a} and {b}, plus {k}",
        "return max({a}, {b}) + {k}",
        lambda a, b, c: sorted([a, b])[1] + c["k"],
    ),
    Template(
        "True if {a} plus {b} is above {k}",
        "return {a} + {b} > {k}",
        lambda a, b, c: a > c["k"] - b,
    ),
    Template(
        "the remainder of {a} times {b} divided by {k}",
        "return {a} * {b} % {k}",
        lambda a, b, c: ((a % c["k"]) * (b % c["k"])) % c["k"],
    ),
    Template(
        "{a} times {k} plus {b} times {m}",
        "return {a} * {k} + {b} * {m}",
        lambda a, b, c: sum(x * y for x, y in [(a, c["k"]), (b, c["m"])]),
    ),
)

_NUMBERS = (
    Template(
        "the sum of {xs} plus {k}",
        "return sum({xs}) + {k}",
        lambda xs, c: sum(xs, start=c["k"]),
    ),
    Template(
        "the largest of {xs} minus {k}",
        "return max({xs}) - {k}",
        lambda xs, c: sorted(xs)[-1] - c["k"],
    ),
    Template(
        "the numbers in {xs} above {k}",
        "return [x for x in {xs} if x > {k}]",
        lambda xs, c: list(filter(lambda x: x > c["k"], xs)),
    ),
    Template(
        "the multiples of {k} in {xs}",
        "return [x for x in {xs} if x % {k} == 0]",
        lambda xs, c: list(filter(lambda x: x % c["k"] == 0, xs)),
    ),
    Template(
        "{xs} with {k} added to each number",
        "return [x + {k} for x in {xs}]",
        lambda xs, c: list(map(lambda x: x + c["k"], xs)),
    ),
    Template(
        "{xs} with each number times {k}",
        "return [x * {k} for x in {xs}]",
        lambda xs, c: list(map(lambda x: x * c["k"], xs)),
    ),
    Template(
        "how many numbers in {xs} are below {k}",
        "return sum(x < {k} for x in {xs})",
        lambda xs, c: len([x for x in xs if x < c["k"]]),
    ),
    Template(
        "how often {k} is in {xs}",
        "return {xs}.count({k})",
        lambda xs, c: len([x for x in xs if x == c["k"]]),
    ),
    Template(
        "True if {k} is in {xs}",
        "return {k} in {xs}",
        lambda xs, c: any(x == c["k"] for x in xs),
    ),
    Template(
        "{xs} with {k} at the end",
        "return {xs} + [{k}]",
        lambda xs, c: [*xs, c["k"]],
    ),
    Template(
        "{xs} without the number {k}",
        "return [x for x in {xs} if x != {k}]",
        lambda xs, c: list(filter(lambda x: x != c["k"], xs)),
    ),
    Template(
        "True if all numbers in {xs} are above {k}",
        "return all(x > {k} for x in {xs})",
        lambda xs, c: min(xs) > c["k"],
    ),
    Template(
        "True if any number in {xs} is above {k}",
        "return any(x > {k} for x in {xs})",
        lambda xs, c: max(xs) > c["k"],
    ),
    Template(
        "the sum of the numbers in {xs} below {k}",
        "return sum(x for x in {xs} if x < {k})",
        lambda xs, c: sum(x * (x < c["k"]) for x in xs),
    ),
    Template(
        "the sum of {xs} times {k}, plus {m}",
        "total = sum({xs})\nreturn total * {k} + {m}",
        lambda xs, c: sum(x * c["k"] for x in xs) + c["m"],
    ),
)

_STRING = (
    Template('{s} followed by "{u}"', 'return {s} + "{u}"', lambda s, c: s + c["u"]),
    Template('{s} with "{u}" in front', 'return "{u}" + {s}', lambda s, c: c["u"] + s),
    Template(
        'how often "{u}" is in {s}',
        'return {s}.count("{u}")',
        lambda s, c: len(s.split(c["u"])) - 1,
    ),
    Template(
        'True if {s} starts with "{u}"',
        'return {s}.startswith("{u}")',
        lambda s, c: s[:2] == c["u"],
    ),
    Template(
        'True if {s} ends with "{u}"',
        'return {s}.endswith("{u}")',
        lambda s, c: s[-2:] == c["u"],
    ),
    Template(
        '{s} with "{u}" replaced by "{v}"',
        'return {s}.replace("{u}", "{v}")',
        lambda s, c: c["v"].join(s.split(c["u"])),
    ),
    Template(
        'the parts of {s} between "{u}"',
        'return {s}.split("{u}")',
        lambda s, c: s.replace(c["u"], "\n").split("\n"),
    ),
    Template(
        'True if {s} contains "{u}"',
        'return "{u}" in {s}',
        lambda s, c: s.find(c["u"]) >= 0,
    ),
    Template(
        '{s} in upper case followed by "{u}"',
        'return {s}.upper() + "{u}"',
        lambda s, c: "".join(map(str.upper, s)) + c["u"],
    ),
    Template(
        '{s} reversed, with "{u}" in front',
        'return "{u}" + {s}[::-1]',
        lambda s, c: c["u"] + "".join(reversed(s)),
    ),
)

FAMILIES = (
    Family(("n",), (("n",), ("x",), ("num",), ("value",)), _one_number, _ONE_NUMBER),
    Family(
        ("a", "b"),
        (("a", "b"), ("x", "y"), ("p", "q"), ("first", "second")),
        _two_numbers,
        _TWO_NUMBERS,
    ),
    Family(("xs",), (("xs",), ("nums",), ("values",), ("items",)), _numbers, _NUMBERS),
    Family(("s",), (("s",), ("text",), ("word",), ("name",)), _string, _STRING),
)
