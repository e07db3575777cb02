"""Finds held-out texts inside training examples by their word n-grams.

GPT-3 (arXiv:2005.14165, appendix C) compares 13-grams of lowercase words without
punctuation, Tulu 3 (arXiv:2411.15124) 8-grams. Both would call nearly every row of a
templated task contaminated, since its rows share their wording by construction. Here
a shared n-gram is only counted; a training example is removed if one of its texts
(prompt or reply) holds a whole held-out text of n words or more, or is held by one
whole. Shorter texts are left to the exact comparison of prompts.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dcft_jax.data.example import Example, normalise

Words = tuple[str, ...]

# Only at the edges of a word: 3.5 and -3 stay what they are, and so do operators.
_PUNCTUATION = ".,;:!?\"'`()[]{}*_"


@dataclass(frozen=True)
class Contamination:
    """What `find_contamination` found.

    Attributes:
        shared: number of training examples that share an n-gram with a held-out text.
        contained: indices of the training examples to remove.
    """

    shared: int
    contained: frozenset[int]


def find_contamination(
    train: Sequence[Example], held_out: Sequence[Example], ngram: int
) -> Contamination:
    """Compares every training example with all held-out ones.

    Time and memory are linear in the number of words.

    Args:
        train: training examples.
        held_out: examples that must not be learnt by heart.
        ngram: n, in words; 0 compares nothing.

    Raises:
        ValueError: a negative n.
    """
    if ngram < 0:
        raise ValueError(f"decontamination_ngram={ngram} must be 0 (off) or positive")
    if ngram == 0:
        return Contamination(0, frozenset())
    train_texts = [_texts(example, ngram) for example in train]
    held_texts = {text for example in held_out for text in _texts(example, ngram)}
    held_grams = {gram for text in held_texts for gram in _grams(text, ngram)}
    find_held = _finder(held_texts, ngram)
    find_train = _finder({text for texts in train_texts for text in texts}, ngram)
    inside_held = {inner for text in held_texts for inner in find_train(text)}
    shared = 0
    contained = set()
    for index, texts in enumerate(train_texts):
        shared += any(not held_grams.isdisjoint(_grams(text, ngram)) for text in texts)
        if any(text in inside_held or any(find_held(text)) for text in texts):
            contained.add(index)
    return Contamination(shared, frozenset(contained))


def _texts(example: Example, ngram: int) -> list[Words]:
    """Prompt and reply as words, if long enough; a system prompt tells nothing."""
    prompt = " ".join(text for role, text in example.prompt if role != "system")
    texts = (_words(prompt), _words(example.reply))
    return [text for text in texts if len(text) >= ngram]


def _words(text: str) -> Words:
    words = (word.strip(_PUNCTUATION) for word in normalise(text).split())
    # Interned: corpora repeat their words, and equal ones then share memory and hash.
    return tuple(sys.intern(word) for word in words if word)


def _grams(text: Words, ngram: int) -> list[Words]:
    return [text[i : i + ngram] for i in range(len(text) - ngram + 1)]


def _finder(texts: set[Words], ngram: int) -> Callable[[Words], Iterator[Words]]:
    """A function that yields those of `texts` which another text holds whole."""
    lengths = defaultdict(set)  # first n-gram -> lengths of the texts it opens
    for text in texts:
        lengths[text[:ngram]].add(len(text))

    def find(holder: Words) -> Iterator[Words]:
        for start, gram in enumerate(_grams(holder, ngram)):
            for length in lengths.get(gram, ()):
                candidate = holder[start : start + length]
                if candidate in texts:
                    yield candidate

    return find
