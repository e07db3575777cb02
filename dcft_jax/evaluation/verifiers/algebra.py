"""Equality of expressions: exact rational arithmetic at fixed pseudo-random points.

Two rational expressions that agree at points drawn from a large set are the same
with overwhelming probability (Schwartz 1980; Zippel 1979). Roots that are not
rational are taken to 50 digits and compared to 30. Every number is bounded, so an
expression that is too large to evaluate costs nothing: it is `UnreadableError`.
"""

import dataclasses
import decimal
import math
import random
from decimal import Decimal
from fractions import Fraction

from dcft_jax.evaluation.verifiers.expression import (
    Node,
    Number,
    Operation,
    UnreadableError,
    Variable,
)

MAX_BITS = 8192  # of the numerator and of the denominator of any intermediate result
MAX_FACTORIAL = 500
MAX_DEGREE = 64  # of a root
NUM_POINTS = 4  # where variables take both signs from the third on

_DIGITS = 50
_TOLERANCE = Decimal(10) ** -30
# Constants are indeterminates too, but near their values: |pi - 3| is pi - 3.
_CONSTANTS = {"π": "3.14159265358979", "e": "2.71828182845904"}

Value = Fraction | Decimal | None  # None: undefined, such as 1/0


@dataclasses.dataclass(frozen=True)
class Values:
    """An expression at each of the points; a single value if it has no variable."""

    at_points: tuple[Value, ...]
    constant: bool


def evaluate(node: Node) -> Values:
    """Values of an expression at the points, the same for every expression.

    Raises:
      UnreadableError: a number on the way is too large.
    """
    constant = not _has_variable(node)
    points = range(1 if constant else NUM_POINTS)
    try:
        return Values(tuple(_value(node, point) for point in points), constant)
    except (decimal.Overflow, decimal.Underflow) as error:
        raise UnreadableError("too large or too small to evaluate") from error


def same_values(a: Values, b: Values) -> bool:
    """Whether two expressions are equal: defined at the same points, and equal there.

    Expressions that are defined at none of the points are not called equal.
    """
    pairs = _pairs(a, b)
    defined = [x is not None and y is not None for x, y in pairs]
    return any(defined) and all(_close(x, y) for x, y in pairs)


def proportional(a: Values, b: Values) -> bool:
    """Whether a = c b with a constant c that is not 0: `a = 0` and `b = 0` agree."""
    ratios = []
    for x, y in _pairs(a, b):
        if (x is None) != (y is None):
            return False
        if x is None or y is None:
            continue
        if not x or not y:
            return False
        ratios.append(_divide(x, y))
    return bool(ratios) and all(_close(ratios[0], r) for r in ratios)


def _pairs(a: Values, b: Values) -> list[tuple[Value, Value]]:
    n = max(len(a.at_points), len(b.at_points))

    def spread(values: Values) -> tuple[Value, ...]:
        return values.at_points * (n if len(values.at_points) == 1 else 1)

    return list(zip(spread(a), spread(b), strict=True))


def _close(a: Value, b: Value) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    with decimal.localcontext(_context()):
        a, b = _decimal(a), _decimal(b)
        size = max(abs(a), abs(b))
        return abs(a - b) <= _TOLERANCE * size or size < _TOLERANCE


def _has_variable(node: Node) -> bool:
    if isinstance(node, Operation):
        return any(_has_variable(arg) for arg in node.args)
    return isinstance(node, Variable)


def _point(name: str, point: int) -> Fraction:
    """Value of a variable: a function of its name, so that all expressions share it."""
    draw = random.Random(f"{name} {point}")
    if name in _CONSTANTS:
        return Fraction(_CONSTANTS[name]) + Fraction(draw.randint(-999, 999), 10**9)
    size = Fraction(draw.randint(10**5, 4 * 10**5), 99_991)
    return -size if point >= 2 and draw.random() < 0.5 else size


def _value(node: Node, point: int) -> Value:
    if isinstance(node, Number):
        return _bounded(node.value)
    if isinstance(node, Variable):
        return _point(node.name, point)
    args: list[Fraction | Decimal] = []
    for arg in node.args:
        value = _value(arg, point)
        if value is None:
            return None
        args.append(value)
    if node.name in ("add", "mixed"):
        return _fold(_add, args)
    if node.name == "multiply":
        return _fold(_multiply, args)
    if node.name == "negate":
        return -args[0]
    if node.name == "divide":
        return _divide(args[0], args[1]) if args[1] else None
    if node.name == "power":
        return _power(args[0], args[1])
    if node.name == "root":
        return _root(args[0], args[1])
    if node.name == "factorial":
        return _factorial(args[0])
    assert node.name == "absolute", node.name
    return abs(args[0])


def _context() -> decimal.Context:
    # A number that leaves this range, or is no number, raises.
    return decimal.Context(
        prec=_DIGITS,
        Emax=100_000,
        Emin=-100_000,
        traps=[decimal.InvalidOperation, decimal.Overflow, decimal.Underflow],
    )


def _decimal(value: Fraction | Decimal) -> Decimal:
    if isinstance(value, Decimal):
        return value
    with decimal.localcontext(_context()):
        return Decimal(value.numerator) / Decimal(value.denominator)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise UnreadableError(f"a number of more than {MAX_BITS} bits")
    return value


def _fold(operation, args: list[Fraction | Decimal]) -> Fraction | Decimal:
    result = args[0]
    for arg in args[1:]:
        result = operation(result, arg)
    return result


def _add(a: Fraction | Decimal, b: Fraction | Decimal) -> Fraction | Decimal:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a + b)
    with decimal.localcontext(_context()):
        return _decimal(a) + _decimal(b)


def _multiply(a: Fraction | Decimal, b: Fraction | Decimal) -> Fraction | Decimal:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a * b)
    with decimal.localcontext(_context()):
        return _decimal(a) * _decimal(b)


def _divide(a: Fraction | Decimal, b: Fraction | Decimal) -> Fraction | Decimal:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a / b)
    with decimal.localcontext(_context()):
        return _decimal(a) / _decimal(b)


def _power(base: Fraction | Decimal, exponent: Fraction | Decimal) -> Value:
    if not base:
        return None if exponent <= 0 else Fraction(0)
    if isinstance(exponent, Fraction) and exponent.denominator <= MAX_DEGREE:
        if exponent.denominator > 1:
            root = _root(Fraction(exponent.denominator), base)
            return None if root is None else _integer_power(root, exponent.numerator)
        return _integer_power(base, exponent.numerator)
    if base < 0:
        return None
    with decimal.localcontext(_context()):
        return _decimal(base) ** _decimal(exponent)


def _integer_power(base: Fraction | Decimal, exponent: int) -> Fraction | Decimal:
    if isinstance(base, Fraction):
        if abs(base) == 1:
            return base if exponent % 2 else Fraction(1)
        # Measured before it is computed.
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if (bits - 1) * abs(exponent) > MAX_BITS:
            raise UnreadableError(f"a power of more than {MAX_BITS} bits")
        return _bounded(base**exponent)
    if abs(exponent) > MAX_BITS:
        raise UnreadableError(f"an exponent above {MAX_BITS}")
    with decimal.localcontext(_context()):
        return base**exponent


def _root(degree: Fraction | Decimal, value: Fraction | Decimal) -> Value:
    """The real root; exact where it is rational."""
    if not isinstance(degree, Fraction) or degree.denominator != 1:
        raise UnreadableError("the degree of a root is not an integer")
    n = degree.numerator
    if not 1 <= n <= MAX_DEGREE:
        raise UnreadableError(f"the degree of a root is not between 1 and {MAX_DEGREE}")
    if value < 0:
        positive = _root(degree, -value) if n % 2 else None
        return None if positive is None else -positive
    if isinstance(value, Fraction):
        top, bottom = (_exact_root(x, n) for x in (value.numerator, value.denominator))
        if top is not None and bottom is not None:
            return Fraction(top, bottom)
    with decimal.localcontext(_context()):
        base = _decimal(value)
        return base.sqrt() if n == 2 else base ** (Decimal(1) / n)


def _exact_root(value: int, n: int) -> int | None:
    if n == 2:
        root = math.isqrt(value)
    elif value == 0:
        root = 0
    else:  # exact up to 50 digits of the root, beyond which it is not found
        with decimal.localcontext(_context()):
            root = int((Decimal(value) ** (Decimal(1) / n)).to_integral_value())
    return root if root**n == value else None


def _factorial(value: Fraction | Decimal) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        return None
    if value > MAX_FACTORIAL:
        raise UnreadableError(f"the factorial of more than {MAX_FACTORIAL}")
    return Fraction(math.factorial(value.numerator))
