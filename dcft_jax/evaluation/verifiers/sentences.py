"""Counting words and sentences of English by rules, without a trained model."""

import re

_WORD = re.compile(r"\w+")
# The end of a sentence: marks, closing quotes or brackets, then space or the end. The
# look-behind makes a run of marks be tried once, not once per mark.
_END = re.compile(r"(?<![.!?\u2026])[.!?\u2026]+[\"'\u201d\u2019)\]*_]*(?=\s|$)")
_LAST_WORD = re.compile(r"[^\s(\[\"\u201c]*$")
_ABBREVIATIONS = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "capt", "lt", "col"),
        *("gen", "rev", "hon", "vs", "etc", "cf", "al", "approx", "dept", "est"),
        *("fig", "no", "vol", "inc", "ltd", "corp", "co", "e.g", "i.e", "a.m", "p.m"),
        *("u.s", "u.k", "ph.d"),
    )
)


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores: "don't" is two."""
    return len(_WORD.findall(text))


def count_sentences(text: str) -> int:
    """Sentences, each ended by `.`, `!`, `?` or the end of the text.

    A full stop ends none after an abbreviation or a single capital letter, as in
    "J. Smith", and no mark does before a lower-case letter. A line break alone does
    not either, as in the Punkt tokenizer that IFEval uses.
    """
    count, start = 0, 0
    for end in _END.finditer(text):
        if not _WORD.search(text, start, end.start()):
            start = end.end()  # marks alone, such as "..." after a sentence
        elif _ends_sentence(text, start, end):
            count, start = count + 1, end.end()
    return count + bool(_WORD.search(text, start))


def _ends_sentence(text: str, start: int, end: re.Match[str]) -> bool:
    following = text[end.end() : end.end() + 100].lstrip()
    if following[:1].islower():
        return False
    if end[0] != "." or not following:
        return True
    before = _LAST_WORD.search(text[max(start, end.start() - 20) : end.start()])
    word = before[0] if before else ""
    initial = len(word) == 1 and word.isupper() and word != "I"
    return not initial and word.lower() not in _ABBREVIATIONS
