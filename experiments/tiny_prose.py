"""Prose: a dictionary, an almanac, a bible translation, a language reference."""

import ast
import json
import pydoc_data.topics
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dcft_jax.data import Example
from experiments.tiny_documents import plain
from experiments.tiny_packages import members

_PARTS_OF_SPEECH = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
_PARTS_OF_SPEECH["s"] = "adjective"


class Synset(NamedTuple):
    """One sense of the words of a line of WordNet's data files."""

    unit: str
    part_of_speech: str
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]


def synsets(path: Path) -> Iterator[Synset]:
    """Parses WordNet's `data.*` files; the format is that of its manual, wndb(5)."""
    for name, text in members(path, ""):
        if re.search(r"/data\.(noun|verb|adj|adv)$", name):
            # The licence at the top is indented.
            lines = (line for line in text.splitlines() if not line.startswith(" "))
            yield from map(_synset, lines)


def _synset(line: str) -> Synset:
    fields, _, gloss = line.partition(" | ")
    offset, _, kind, count, *rest = fields.split(" ")
    # Adjectives may end in a marker of where they stand: "galore(ip)".
    names = [re.sub(r"\(\w+\)$", "", n) for n in rest[: 2 * int(count, 16) : 2]]
    definition, _, _ = gloss.partition('; "')
    return Synset(
        unit=f"wordnet {kind}{offset}",
        part_of_speech=_PARTS_OF_SPEECH[kind],
        words=tuple(name.replace("_", " ") for name in names),
        definition=definition.strip(),
        examples=tuple(re.findall(r'; "([^"]+)"', gloss)),
    )


def wordnet(path: Path) -> Iterator[Example]:
    """One entry each: `sigh (verb): heave or utter a sigh. She sighed sadly.`"""
    for synset in synsets(path):
        head = f"{', '.join(synset.words)} ({synset.part_of_speech})"
        sentences = [synset.definition, *synset.examples]
        text = " ".join(
            s if s.endswith((".", "!", "?")) else f"{s}." for s in sentences
        )
        yield plain(f"{head}: {text}", "wordnet", synset.unit)


def factbook(path: Path) -> Iterator[Example]:
    """Sections of the countries of the CIA World Factbook, below their names."""
    for name, text in members(path, ".json"):
        if name.count("/") == 2 and "/meta/" not in name:
            country = json.loads(text)
            government = country.get("Government", {}).get("Country name", {})
            title = government.get("conventional short form", {}).get("text", "")
            for section, content in country.items():
                body = "\n".join(_entries(content))
                unit = f"factbook {name} {section}"
                yield from _pieces(f"{title}\n{section}\n{body}", "factbook", unit)


def _entries(content: Any, name: str = "") -> Iterator[str]:
    """`name: text` of the leaves below a section."""
    if isinstance(content, str):
        yield f"{name}: {content}"
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _entries(value, name if key == "text" else key)


def bible(path: Path) -> Iterator[Example]:
    """The World English Bible as running text, in pieces of whole sentences."""
    (_, source), *_ = members(path, "plain_text_readers_bible.py")
    text = max(_strings(ast.parse(source)), key=len)
    sentences = re.split(r"(?<=[.!?\"]) ", text.replace("`", "'"))
    piece: list[str] = []
    for number, sentence in enumerate(sentences):
        piece.append(sentence)
        if sum(map(len, piece)) > 1500 or number == len(sentences) - 1:
            yield plain(" ".join(piece), "bible", f"bible {number}")
            piece = []


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def python_reference() -> Iterator[Example]:
    """The topics of `help()`: parts of the Python language and library reference."""
    for name, text in sorted(pydoc_data.topics.topics.items()):
        yield from _pieces(text, "python_reference", f"topic {name}")


def _pieces(text: str, source: str, unit: str, size: int = 2000) -> Iterator[Example]:
    """Whole paragraphs (or lines) up to `size` characters, one more at most."""
    separator = "\n\n" if "\n\n" in text else "\n"
    piece, length = [], 0
    paragraphs = text.strip().split(separator)
    for number, paragraph in enumerate(paragraphs, 1):
        piece.append(paragraph)
        length += len(paragraph)
        if length > size or number == len(paragraphs):
            yield plain(separator.join(piece), source, f"{unit} {number}")
            piece, length = [], 0
