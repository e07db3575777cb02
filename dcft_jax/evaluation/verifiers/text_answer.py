"""Exact match of short free texts, such as the choices of SocialIQA."""
# ruff: noqa: RUF001 (look-alike characters are what this is about)

import re
import unicodedata

from dcft_jax.evaluation.verifiers.verdict import Verdict

_QUOTES = str.maketrans(dict.fromkeys("’‘`´", "'") | dict.fromkeys("“”„«»", '"'))


def normalise_text(text: str) -> str:
    """What counts of a short text.

    Unicode compatibility forms (NFKC), straight quotes, lower case, single spaces, and
    no white space, quotes or final `.`, `!`, `?`, `,`, `;`, `:` around it. Articles
    and punctuation within the text count.
    """
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold()
    text = unicodedata.normalize("NFKC", text)  # lower case may come apart again
    return re.sub(r"\s+", " ", text).strip(" \"'").rstrip(" \"'.!?,;:")


def verify_text(reply: str, gold: str) -> Verdict:
    """Judges a whole reply by equality with the gold text after `normalise_text`.

    Raises:
      ValueError: nothing of the gold text is left after it.
    """
    expected, extracted = normalise_text(gold), normalise_text(reply)
    if not expected:
        raise ValueError(
            f"gold={gold[:80]!r} is empty without white space and punctuation; "
            "compare such texts with =="
        )
    if not extracted:
        return Verdict(False, None, "empty reply")
    correct = extracted == expected
    return Verdict(correct, extracted, "same text" if correct else "different text")
