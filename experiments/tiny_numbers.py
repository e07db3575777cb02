"""Facts about numbers, none of which needs more arithmetic than counting.

The abilities of the quickstart calculate and solve equations; here numbers are counted,
compared, ordered, copied, spelled and taken apart. Every fact is drawn from its index.
"""

from collections.abc import Callable, Iterator
from random import Random

from dcft_jax.data import Example
from experiments.tiny_documents import plain, question

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
    *("seventeen", "eighteen", "nineteen"),
)
_TENS = (
    *("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
)

Fact = tuple[str, str]  # question, answer


def in_words(number: int) -> str:
    """English name of a number from 0 to 999,999."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        ten, one = divmod(number, 10)
        return _TENS[ten - 2] + (f"-{_SMALL[one]}" if one else "")
    size, word = (100, "hundred") if number < 1000 else (1000, "thousand")
    many, rest = divmod(number, size)
    return f"{in_words(many)} {word}" + (f" {in_words(rest)}" if rest else "")


def _number(rng: Random, most_digits: int = 4) -> int:
    """Short numbers are as likely as long ones."""
    return rng.randrange(10 ** rng.randint(1, most_digits))


def _several(rng: Random, least: int = 3, most: int = 5) -> list[int]:
    digits = rng.randint(2, 4)
    return rng.sample(range(10**digits), rng.randint(least, most))


def _joined(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _count_up(rng: Random) -> Fact:
    first, many = _number(rng, 3), rng.randint(3, 9)
    numbers = list(range(first, first + many))
    return f"Count from {first} to {numbers[-1]}.", _joined(numbers)


def _count_down(rng: Random) -> Fact:
    last, many = _number(rng, 3), rng.randint(3, 9)
    numbers = list(range(last + many - 1, last - 1, -1))
    return f"Count down from {numbers[0]} to {last}.", _joined(numbers)


def _next(rng: Random) -> Fact:
    number = _number(rng)
    return f"Which number comes after {number}?", str(number + 1)


def _before(rng: Random) -> Fact:
    number = _number(rng)
    return f"Which number comes before {number + 1}?", str(number)


def _larger(rng: Random) -> Fact:
    a, b = _several(rng, 2, 2)
    return f"Which is larger, {a} or {b}?", str(max(a, b))


def _smaller(rng: Random) -> Fact:
    a, b = _several(rng, 2, 2)
    return f"Which is smaller, {a} or {b}?", str(min(a, b))


def _relation(rng: Random) -> Fact:
    a, b = _several(rng, 2, 2)
    return f"Put < or > between {a} and {b}.", f"{a} {'<' if a < b else '>'} {b}"


def _order(rng: Random) -> Fact:
    numbers = _several(rng)
    prompt = f"Order these numbers from small to large: {_joined(numbers)}"
    return prompt, _joined(sorted(numbers))


def _copy(rng: Random) -> Fact:
    number = _number(rng, 8)
    return f"Copy this number: {number}", str(number)


def _spell(rng: Random) -> Fact:
    number = _number(rng, 6)
    return f"Write {number} in words.", in_words(number)


def _read(rng: Random) -> Fact:
    number = _number(rng, 6)
    return f"Write {in_words(number)} in digits.", str(number)


def _digits(rng: Random) -> Fact:
    number = str(_number(rng, 6))
    return f"List the digits of {number}.", " ".join(number)


def _how_many_digits(rng: Random) -> Fact:
    number = _number(rng, 8)
    return f"How many digits does {number} have?", str(len(str(number)))


def _parity(rng: Random) -> Fact:
    number = _number(rng)
    return f"Is {number} even or odd?", "odd" if number % 2 else "even"


FACTS: tuple[Callable[[Random], Fact], ...] = (
    *(_count_up, _count_down, _next, _before, _larger, _smaller, _relation, _order),
    *(_copy, _spell, _read, _digits, _how_many_digits, _parity),
)


def number_questions(count: int) -> Iterator[Example]:
    for index in range(count):
        rng = Random(f"number questions/{index}")
        prompt, reply = rng.choice(FACTS)(rng)
        yield question(prompt, reply, "number_questions", f"question {prompt}")


def number_lines(count: int) -> Iterator[Example]:
    """Facts of one kind as plain text, a dozen lines each."""
    for index in range(count):
        rng = Random(f"number lines/{index}")
        fact = rng.choice(FACTS)
        lines = [" ".join(fact(rng)) for _ in range(12)]
        yield plain("\n".join(lines), "number_lines", f"lines {index}")
