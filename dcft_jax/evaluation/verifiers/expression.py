r"""Parser of arithmetic and algebra, bounded in length and depth; it runs nothing.

Reads what `notation.plain` writes: + - * / ^ !, juxtaposition, ( ), { }, | |,
`\frac`, `\sqrt`, `\overline` for repeating decimals, mixed numbers, one-letter
variables with subscripts, Greek letters. Everything else is `UnreadableError`.
"""

import dataclasses
import re
from fractions import Fraction

MAX_LENGTH = 500  # characters of one expression
MAX_DEPTH = 30  # of nested groups, and of divisions that follow each other
MAX_EXPONENT = 10_000  # of a literal in scientific notation

_NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)")
_SCIENTIFIC = re.compile(r"[eE]([+-]?\d{1,6})(?![\d.])")
_OVERLINE = re.compile(r"\\overline\s*\{(\d+)\}")
_MIXED = re.compile(r"\s*\\frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))")
_MIXED_SLASH = re.compile(r" +(\d+)/(\d+)(?![\d.])")
_LETTERS = re.compile(r"[A-Za-z]+")
_SUBSCRIPT = re.compile(r"_(?:\{(\w+)\}|(\w))")
_GREEK = re.compile(
    r"\\(alpha|beta|gamma|delta|epsilon|varepsilon|theta|lambda|mu|nu|rho|sigma|tau"
    r"|phi|varphi|omega|Delta|Omega)(?![A-Za-z])"
)
_FUNCTIONS = re.compile(
    r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln|exp|mod|gcd|lcm|max|min|lim|det|deg"
)


class UnreadableError(ValueError):
    """A text is not an expression that this package can evaluate."""


@dataclasses.dataclass(frozen=True)
class Number:
    value: Fraction


@dataclasses.dataclass(frozen=True)
class Variable:
    name: str


@dataclasses.dataclass(frozen=True)
class Operation:
    """`add` and `multiply` of any number of arguments; `negate`, `divide`, `power`,
    `root` (degree, radicand), `factorial`, `absolute`, `mixed` (whole, fraction)."""

    name: str
    args: tuple["Node", ...]


Node = Number | Variable | Operation


def parse(text: str) -> Node:
    """The expression that `text`, an output of `notation.plain`, writes.

    Division and multiplication bind equally, left first, also when the
    multiplication sign is left out: `1/2x` is x/2.

    Raises:
      UnreadableError: it is too long, too deep, or not such an expression.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError(f"longer than {MAX_LENGTH} characters")
    node, end = _sum(text, 0, 0)
    if _skip(text, end) != len(text):
        raise UnreadableError(f"cannot read {text[end : end + 10]!r}")
    return node


def _skip(text: str, i: int) -> int:
    while i < len(text) and text[i] == " ":
        i += 1
    return i


def _peek(text: str, i: int) -> str:
    return text[i] if i < len(text) else ""


def _is_letter(c: str) -> bool:
    return c == "∞" or (c.isalpha() and (c.isascii() or "\u0391" <= c <= "\u03c9"))


def _sum(text: str, i: int, depth: int) -> tuple[Node, int]:
    if depth > MAX_DEPTH:
        raise UnreadableError(f"nested more than {MAX_DEPTH} deep")
    terms: list[Node] = []
    while True:
        i = _skip(text, i)
        sign = _peek(text, i)
        if sign in ("+", "-"):
            i = _skip(text, i + 1)
            if terms and _peek(text, i) == "-":  # 2 + -3
                sign, i = ("-" if sign == "+" else "+"), i + 1
        elif terms:
            break
        term, i = _product(text, i, depth)
        terms.append(Operation("negate", (term,)) if sign == "-" else term)
    return (terms[0] if len(terms) == 1 else Operation("add", tuple(terms))), i


def _product(text: str, i: int, depth: int) -> tuple[Node, int]:
    factor, i = _power(text, i, depth)
    factors: list[Node] = [factor]
    divisions = 0
    while True:
        i = _skip(text, i)
        c = _peek(text, i)
        if c in ("*", "/"):
            factor, i = _signed(text, i + 1, depth)
            if c == "/":
                divisions += 1
                if divisions > MAX_DEPTH:
                    raise UnreadableError(f"more than {MAX_DEPTH} divisions in a row")
                factors = [Operation("divide", (_multiply(factors), factor))]
                continue
        elif c and (_is_letter(c) or c in "({\\"):
            factor, i = _power(text, i, depth)
        else:
            return _multiply(factors), i
        factors.append(factor)


def _multiply(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Operation("multiply", tuple(factors))


def _signed(text: str, i: int, depth: int) -> tuple[Node, int]:
    """A factor after an explicit sign, which may have a sign of its own: 2*-3."""
    i = _skip(text, i)
    if _peek(text, i) == "-":
        node, i = _power(text, i + 1, depth)
        return Operation("negate", (node,)), i
    return _power(text, i, depth)


def _power(text: str, i: int, depth: int) -> tuple[Node, int]:
    base, i = _primary(text, i, depth)
    if _peek(text, i) == "!":  # once: 3!! is another function
        base, i = Operation("factorial", (base,)), i + 1
    after = _skip(text, i)
    if _peek(text, after) != "^":
        return base, i
    if depth >= MAX_DEPTH:
        raise UnreadableError(f"nested more than {MAX_DEPTH} deep")
    exponent, i = _signed(text, after + 1, depth + 1)  # to the right: 2^3^2 = 2^9
    return Operation("power", (base, exponent)), i


def _primary(text: str, i: int, depth: int) -> tuple[Node, int]:
    i = _skip(text, i)
    c = _peek(text, i)
    closing = {"(": ")", "{": "}", "|": "|"}.get(c)
    if closing:
        node, i = _sum(text, i + 1, depth + 1)
        i = _skip(text, i)
        if _peek(text, i) != closing:
            raise UnreadableError(f"missing {closing}")
        return (Operation("absolute", (node,)) if c == "|" else node), i + 1
    if c.isdecimal() or c == ".":
        return _number(text, i)
    if c == "\\":
        return _command(text, i, depth)
    if _is_letter(c):
        return _variable(text, i)
    raise UnreadableError(f"cannot read {text[i : i + 10]!r}")


def _number(text: str, i: int) -> tuple[Node, int]:
    match = _NUMBER.match(text, i)
    if not match or not match[0].isascii():
        raise UnreadableError(f"cannot read {text[i : i + 10]!r}")
    literal, i = match[0], match.end()
    value = Fraction(literal if literal[-1] != "." else literal[:-1])
    if "." in literal and (repeat := _OVERLINE.match(text, i)):
        places, period = len(literal.split(".")[1]), repeat[1]
        value += Fraction(int(period), (10 ** len(period) - 1) * 10**places)
        return _end_number(Number(value), text, repeat.end())
    if exponent := _SCIENTIFIC.match(text, i):
        if abs(int(exponent[1])) > MAX_EXPONENT:
            raise UnreadableError(f"exponent above {MAX_EXPONENT}")
        return Number(value * Fraction(10) ** int(exponent[1])), exponent.end()
    if literal.isdecimal():
        mixed = _MIXED.match(text, i) or _MIXED_SLASH.match(text, i)
        if mixed:
            top, bottom = (int(group) for group in mixed.groups() if group)
            if 0 < top < bottom:
                parts = Number(value), _fraction(top, bottom)
                return _end_number(Operation("mixed", parts), text, mixed.end())
    return _end_number(Number(value), text, i)


def _end_number(node: Node, text: str, i: int) -> tuple[Node, int]:
    """Refuses a number, or its base, next to a number: it is a list, not a product."""
    if _peek(text, i) == "_" or _peek(text, _skip(text, i)).isdecimal():
        raise UnreadableError("a number follows a number")
    return node, i


def _fraction(top: int, bottom: int) -> Operation:
    return Operation("divide", (Number(Fraction(top)), Number(Fraction(bottom))))


def _variable(text: str, i: int) -> tuple[Node, int]:
    letters = _LETTERS.match(text, i)
    if letters and (len(letters[0]) > 3 or _FUNCTIONS.match(letters[0])):
        raise UnreadableError(f"{letters[0]!r} is a word or a function")
    return _subscript(text[i], text, i + 1)


def _subscript(name: str, text: str, i: int) -> tuple[Node, int]:
    if subscript := _SUBSCRIPT.match(text, i):
        name, i = f"{name}_{subscript[1] or subscript[2]}", subscript.end()
    # "x2" may be x times 2, x_2 or a misspelt x^2.
    if _peek(text, i).isdecimal() or _peek(text, i) == "'":
        raise UnreadableError(f"{text[i - 1 : i + 1]!r} is ambiguous")
    return Variable(name), i


def _command(text: str, i: int, depth: int) -> tuple[Node, int]:
    if text.startswith(r"\frac", i):
        top, i = _argument(text, i + len(r"\frac"), depth)
        bottom, i = _argument(text, i, depth)
        return Operation("divide", (top, bottom)), i
    if text.startswith(r"\sqrt", i):
        i = _skip(text, i + len(r"\sqrt"))
        degree: Node = Number(Fraction(2))
        if _peek(text, i) == "[":
            degree, i = _sum(text, i + 1, depth + 1)
            if _peek(text, i) != "]":
                raise UnreadableError("missing ]")
            i += 1
        # The sign and the word of plain text reach as far as the number does.
        radicand, i = _argument(text, i, depth, whole=_peek(text, i - 1) == " ")
        return Operation("root", (degree, radicand)), i
    if greek := _GREEK.match(text, i):
        return _subscript(greek[0], text, greek.end())
    raise UnreadableError(f"cannot read {text[i : i + 10]!r}")


def _argument(text: str, i: int, depth: int, whole: bool = False) -> tuple[Node, int]:
    """A LaTeX argument: a group, or one token, which of a number is one digit."""
    i = _skip(text, i)
    c = _peek(text, i)
    if c.isdecimal() and c.isascii():
        number = _NUMBER.match(text, i) if whole else None
        literal = number[0].rstrip(".") if number else c
        return Number(Fraction(literal)), i + len(literal)
    if _is_letter(c):
        return Variable(c), i + 1
    if depth >= MAX_DEPTH:
        raise UnreadableError(f"nested more than {MAX_DEPTH} deep")
    return _primary(text, i, depth + 1)
