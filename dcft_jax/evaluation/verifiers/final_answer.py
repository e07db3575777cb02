r"""Where a worked solution states its final answer.

In this order: the last `\boxed{...}` (asked for by MATH, arXiv:2103.03874), the line
after the last `####` (GSM8K, arXiv:2110.14168), what follows the last "answer is",
the last number. Exactly one answer is taken, so listing many gains nothing.
"""

import re

MAX_REPLY = 20_000  # characters; a final answer is looked for in the last so many

_PHRASE = re.compile(r"\banswer\s*(?:is|:|=)\s*:?\s*", re.IGNORECASE)
# What follows an answer in its own sentence.
_AFTER = re.compile(
    r"[.!?](?=\s|\*|$)|\n|,?\s(?:because|since|which|where)\b", re.IGNORECASE
)
_NUMBER = (
    r"(?:(?<![\w.)\]}])[-\u2212])?\$?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?%?"
)
# Numbers with nothing but separators between them are one list.
_RUN = re.compile(
    rf"{_NUMBER}(?:(?:\s*(?:,|;|\.\.\.|…|\band\b|\bor\b)\s*|\s+)+{_NUMBER})*",
    re.IGNORECASE,
)
_MARKUP = " \t\r\n*_`"


def extract_answer(reply: str) -> str | None:
    r"""The final answer that a reply states, as it is written there.

    A `\boxed{` that is never closed means that the reply was cut: it has no answer,
    and neither earlier boxes nor the numbers inside it are taken for one. Numbers
    that follow each other ("1 2 3", "3 or 4") are taken together, as one list.

    Returns:
      The answer without markup around it; None when there is none.
    """
    text = reply[-MAX_REPLY:]
    box = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if box >= 0:
        return _or_none(_boxed(text, box))
    if "####" in text:
        return _or_none(text.rsplit("####", 1)[1].lstrip().split("\n", 1)[0])
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        rest = text[phrases[-1].end() :].lstrip(_MARKUP)
        end = _AFTER.search(rest)
        return _or_none(rest[: end.start()] if end else rest)
    runs = list(_RUN.finditer(text))
    return runs[-1].group() if runs else None


def _boxed(text: str, start: int) -> str | None:
    """What the box that begins at `start` holds; None if it is not closed."""
    name = re.compile(r"\\(?:boxed|fbox)\s*").match(text, start)
    begin = name.end() if name else start
    if text[begin : begin + 1] != "{":  # `\boxed 5` holds one word
        words = re.split(r"[\s$]", text[begin:], maxsplit=1)
        return words[0]
    depth, i = 0, begin
    while i < len(text):
        if text[i] == "\\":
            i += 2  # an escaped brace does not group
            continue
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[begin + 1 : i]
        i += 1
    return None


def _or_none(answer: str | None) -> str | None:
    stripped = (answer or "").strip(_MARKUP)
    return stripped or None
