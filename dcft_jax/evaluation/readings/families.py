"""Who is what to whom."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

# Names that tell the gender; those of the generator that do not are left out.
MALE = (
    *("James", "John", "Robert", "Michael", "William", "David", "Richard", "Joseph"),
    *("Thomas", "Charles", "Peter", "Daniel", "Matthew", "Christopher", "Andrew"),
    *("George", "Edward", "Benjamin", "Henry", "Samuel", "Alexander", "Oliver"),
    *("Jack", "Harry", "Jacob", "Ethan", "Lucas", "Sebastian", "Theodore", "Liam"),
)
FEMALE = (
    *("Mary", "Patricia", "Jennifer", "Linda", "Elizabeth", "Barbara", "Susan"),
    *("Jessica", "Sarah", "Karen", "Emma", "Lisa", "Anna", "Margaret", "Victoria"),
    *("Charlotte", "Sophia", "Isabella", "Olivia", "Mia", "Emily", "Abigail"),
    *("Amelia", "Eleanor", "Grace", "Alice", "Lucy", "Chloe", "Lily", "Hannah"),
)

_COUPLE = re.compile(
    r"(\w+) is married to (\w+)\.(?: They have (?:a child|children) called ([^.]*)\.)?"
)
_ASKED = re.compile(
    r"What is (\w+) to (\w+)\?|How is (\w+) related to (\w+)\?"
    r"|What relation is (\w+) to (\w+)\?"
)

# What somebody is to somebody: (male word, female word).
_WORDS = {
    "parent": ("father", "mother"),
    "child": ("son", "daughter"),
    "spouse": ("husband", "wife"),
    "sibling": ("brother", "sister"),
    "grandparent": ("grandfather", "grandmother"),
    "grandchild": ("grandson", "granddaughter"),
    "parent's sibling": ("uncle", "aunt"),
    "sibling's child": ("nephew", "niece"),
    "spouse's parent": ("father-in-law", "mother-in-law"),
    "child's spouse": ("son-in-law", "daughter-in-law"),
    "sibling in law": ("brother-in-law", "sister-in-law"),
}

Relatives = Mapping[str, set[str]]


def family_relationships(question: str) -> set[str]:
    """Every word for what the first person asked about is to the second."""
    asked = _ASKED.search(question)
    if asked is None:
        return set()
    first, second = (name for name in asked.groups() if name)
    if first not in MALE + FEMALE:
        return set()
    spouses, parents, children = _relatives(question)
    related = {
        relation
        for relation, people in _related(second, spouses, parents, children).items()
        if first in people
    }
    return {_WORDS[relation][first in FEMALE] for relation in related}


def _relatives(text: str) -> tuple[Relatives, Relatives, Relatives]:
    spouses, parents, children = (defaultdict(set) for _ in range(3))
    for one, other, names in _COUPLE.findall(text):
        spouses[one].add(other)
        spouses[other].add(one)
        for child in re.split(r", | and ", names) if names else []:
            parents[child] |= {one, other}
            children[one].add(child)
            children[other].add(child)
    return spouses, parents, children


def _related(
    person: str, spouses: Relatives, parents: Relatives, children: Relatives
) -> dict[str, set[str]]:
    """Relation -> those who are that to the person."""

    def of(people: Iterable[str], relatives: Relatives) -> set[str]:
        return {other for one in people for other in relatives.get(one, ())}

    def siblings(people: set[str]) -> set[str]:
        return of(of(people, parents), children) - people

    own_parents, own_children = of([person], parents), of([person], children)
    own_siblings, own_spouse = siblings({person}), of([person], spouses)
    uncles = {one for parent in own_parents for one in siblings({parent})}
    uncles -= own_parents
    return {
        "parent": own_parents,
        "child": own_children,
        "spouse": own_spouse,
        "sibling": own_siblings,
        "grandparent": of(own_parents, parents),
        "grandchild": of(own_children, children),
        "parent's sibling": uncles | (of(uncles, spouses) - own_parents),
        "sibling's child": of(own_siblings | siblings(own_spouse), children),
        "spouse's parent": of(own_spouse, parents),
        "child's spouse": of(own_children, spouses),
        "sibling in law": of(own_siblings, spouses) | siblings(own_spouse),
    }


_SIBLINGS = re.compile(
    r"(\w+) has \d+ brothers? and she also has (\d+) sisters?\. "
    r"How many sisters does (\w+)'s brother have\?"
)
_FRIENDS = re.compile(
    r"(\w+) has \d+ male friends? and she also has (\d+) female friends?\. They all "
    r"are friends with each other and have no other friends aside\. "
    r"How many female friends does (\w+), a male friend of (\w+), have\?"
)


def aiw(question: str) -> set[str]:
    """Her sisters, or her female friends, and she herself.

    Not for the brother of somebody else, of whom nothing is said.
    """
    for pattern in (_SIBLINGS, _FRIENDS):
        found = pattern.fullmatch(question.strip())
        if found and found[1] == found[found.re.groups]:  # the last name is hers again
            return {str(int(found[2]) + 1)}
    return set()
