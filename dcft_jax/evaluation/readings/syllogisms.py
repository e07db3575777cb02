"""Validity of syllogisms by going through all worlds."""

import re
from collections.abc import Callable, Sequence
from itertools import combinations, product

_STATEMENT = re.compile(r"\b(All|No|Some) (\w+) are (not )?(\w+)")

# A kind of individual: for each of three terms, whether it falls under it.
_KINDS = tuple(product((False, True), repeat=3))

# A world: the kinds that have a member. All that categorical statements can tell apart.
_WORLDS = tuple(
    frozenset(world)
    for size in range(len(_KINDS) + 1)
    for world in combinations(_KINDS, size)
)

World = frozenset[tuple[bool, ...]]


def syllogism(question: str) -> set[str]:
    """Yes or No; both, where it depends on whether terms may be empty.

    "All A are B" implies "some A are B" for Aristotle, and not in modern logic. A
    question whose answer is another one in these two is not fit to judge anybody.
    """
    statements = _STATEMENT.findall(question)
    if len(statements) != 3:
        return set()
    terms = sorted({term for s in statements for term in (s[1], s[3])})
    if len(terms) > 3:
        return set()
    *premises, conclusion = [_holds(statement, terms) for statement in statements]
    named = range(len(terms))
    populated = [w for w in _WORLDS if all(any(k[t] for k in w) for t in named)]
    return {_follows(premises, conclusion, ws) for ws in (_WORLDS, populated)}


def _follows(
    premises: Sequence[Callable[[World], bool]],
    conclusion: Callable[[World], bool],
    worlds: Sequence[World],
) -> str:
    possible = [w for w in worlds if all(premise(w) for premise in premises)]
    return "Yes" if all(map(conclusion, possible)) else "No"


def _holds(
    statement: tuple[str, str, str, str], terms: Sequence[str]
) -> Callable[[World], bool]:
    quantifier, subject, negation, predicate = statement
    s, p = terms.index(subject), terms.index(predicate)
    if quantifier == "All":
        return lambda world: not any(kind[s] and not kind[p] for kind in world)
    if quantifier == "No":
        return lambda world: not any(kind[s] and kind[p] for kind in world)
    wanted = not negation
    return lambda world: any(kind[s] and kind[p] is wanted for kind in world)
