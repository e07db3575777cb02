"""Questions in the chat layout about the dictionary and about function signatures."""

from collections.abc import Iterable, Iterator
from random import Random

from dcft_jax.data import Example
from experiments.tiny_code import Unit
from experiments.tiny_documents import question
from experiments.tiny_prose import Synset

MAX_CHARS = 400  # prompt and reply together


def dictionary_questions(synsets: Iterable[Synset]) -> Iterator[Example]:
    """One question for each sense: its meaning, a word, a synonym, or a sentence."""
    for synset in synsets:
        rng = Random(synset.unit)
        prompt, reply = rng.choice(_about(synset))
        if len(prompt) + len(reply) <= MAX_CHARS:
            yield question(prompt, reply, "dictionary_questions", synset.unit)


def _about(synset: Synset) -> list[tuple[str, str]]:
    word, *others = synset.words
    found = [
        (f'What does "{word}" mean?', synset.definition),
        (f"Which {synset.part_of_speech} means: {synset.definition}?", word),
        (f'Is "{word}" a noun, verb, adjective or adverb?', synset.part_of_speech),
    ]
    if others:
        found.append((f'What is a synonym of "{word}"?', others[0]))
    # Of "carry", WordNet's example may say "she carried": not a sentence with "carry".
    sentences = [s for s in synset.examples if word in s]
    if sentences:
        found.append((f'Use "{word}" in a sentence.', sentences[0]))
    return found


def signature_questions(units: Iterable[Unit]) -> Iterator[Example]:
    """The head of a function from the summary of its docstring, or its reverse.

    No body is asked for: to write it is the code ability of the quickstart.
    """
    for unit in units:
        summary = " ".join(unit.docstring.partition("\n\n")[0].split())
        fits = len(summary) >= 15 and len(summary) + len(unit.head) <= MAX_CHARS
        if unit.head and fits and f"{unit.head}{summary}".isascii():
            name = unit.head.removeprefix("def ").partition("(")[0]
            prompt, reply = Random(unit.name).choice(
                [
                    (f"Write the head of a Python function. {summary}", unit.head),
                    (f"Name a Python function. {summary}", name),
                    (f"What is this Python function for? {unit.head}", summary),
                ]
            )
            yield question(prompt, reply, "signature_questions", unit.name)
