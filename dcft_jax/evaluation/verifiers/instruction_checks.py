"""Constraints of IFEval on a reply, one function each; `CHECKS` names them.

Zhou et al. 2023, arXiv:2311.07911. Names, arguments and what is counted are those of
the authors' `instruction_following_eval`, also where these may surprise: keywords are
found inside of longer words, "less than" is strict, numbers of bullets and paragraphs
are exact, and a rule (`---`) counts as a bullet. Deviations:

- `language:response_language` is missing, and `change_case:english_capital` and
  `english_lowercase` look at the case only: a language detector is a model.
- `length_constraints:number_sentences` counts by rules (see `sentences`), not with
  NLTK's trained Punkt tokenizer; `change_case:capital_word_frequency` splits words by
  a regular expression, so that DON'T is one word, not two.
- Keywords, markers and phrases are literal text; there they are regular expressions,
  in which "C++" is an error and "." matches everything.
- A missing or malformed argument is an error; there it is drawn at random.
- `keywords:letter_frequency` counts any character, not only a to z.
- Every check takes time linear in the reply.
"""

import json
import re
from collections.abc import Callable, Sequence

from dcft_jax.evaluation.verifiers.sentences import count_sentences, count_words

RELATIONS = ("less than", "at least")
CONSTRAINED_RESPONSES = (
    "My answer is yes.",
    "My answer is no.",
    "My answer is maybe.",
)

# Abbreviations, hyphenated and apostrophised words are one word.
_CAPITAL_CANDIDATE = re.compile(r"\w+(?:[-'\u2019.&/]\w+)*")
_FENCE = re.compile(r"```(?:json|Json|JSON)?")


def _holds(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def existence(reply: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case, also inside of a longer word."""
    lower = reply.lower()
    return all(keyword.lower() in lower for keyword in keywords)


def forbidden_words(reply: str, *, forbidden_words: Sequence[str]) -> bool:
    """No forbidden word occurs as a whole word, in any case."""
    return not any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.IGNORECASE)
        for word in forbidden_words
    )


def keyword_frequency(
    reply: str, *, keyword: str, frequency: int, relation: str
) -> bool:
    """A keyword occurs so often, in any case, also inside of longer words."""
    count = reply.lower().count(keyword.strip().lower())
    return _holds(count, relation, frequency)


def letter_frequency(
    reply: str, *, letter: str, let_frequency: int, let_relation: str
) -> bool:
    """A letter occurs so often, in either case."""
    return _holds(reply.lower().count(letter.lower()), let_relation, let_frequency)


def number_words(reply: str, *, num_words: int, relation: str) -> bool:
    """The reply has so many words."""
    return _holds(count_words(reply), relation, num_words)


def number_sentences(reply: str, *, num_sentences: int, relation: str) -> bool:
    """The reply has so many sentences."""
    return _holds(count_sentences(reply), relation, num_sentences)


def number_paragraphs(reply: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs stand between dividers `***`; none is empty."""
    paragraphs = [paragraph.strip() for paragraph in reply.split("***")]
    outer = not paragraphs[0], len(paragraphs) > 1 and not paragraphs[-1]
    inner = paragraphs[outer[0] : len(paragraphs) - outer[1]]
    return all(inner) and len(inner) == num_paragraphs


def nth_paragraph_first_word(
    reply: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """Blank lines separate paragraphs; the n-th, from 1, begins with a word."""
    paragraphs = [paragraph.strip() for paragraph in reply.split("\n\n")]
    count = sum(map(bool, paragraphs))
    if count != num_paragraphs or nth_paragraph > count:
        return False
    # Empty ones count as positions, as in the original.
    words = paragraphs[nth_paragraph - 1].split(maxsplit=1)
    if not words:
        return False
    word = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0]
    return word.lower() == first_word.lower()


def number_bullet_lists(reply: str, *, num_bullets: int) -> bool:
    """Exactly so many lines begin with `-` or a single `*`, after indentation."""
    lines = [line.lstrip() for line in reply.split("\n")]
    stars = sum(line[:1] == "*" and line[1:2] not in ("", "*") for line in lines)
    dashes = sum(line[:1] == "-" for line in lines)
    return stars + dashes == num_bullets


def number_highlighted_sections(reply: str, *, num_highlights: int) -> bool:
    """At least so many stretches of a line are *highlighted* or **so**."""
    single = re.findall(r"\*([^\n*]*)\*", reply)
    double = re.findall(r"\*\*([^\n*]*)\*\*", reply)
    return sum(bool(text.strip()) for text in single + double) >= num_highlights


def multiple_sections(reply: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections begin with the marker and a number."""
    marker = re.escape(section_spliter.strip())
    return len(re.findall(rf"{marker}\s?\d+", reply)) >= num_sections


def title(reply: str) -> bool:
    """Some line holds a title in double angular brackets, <<like this>>."""
    for line in reply.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def json_format(reply: str) -> bool:
    """The whole reply is one JSON value, with or without a Markdown fence."""
    text = reply.strip()
    if fence := _FENCE.match(text):
        text = text[fence.end() :]
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):  # not JSON; brackets nested too deep
        return False
    return True


def constrained_response(reply: str) -> bool:
    """The reply holds one of `CONSTRAINED_RESPONSES`."""
    return any(response in reply for response in CONSTRAINED_RESPONSES)


def postscript(reply: str, *, postscript_marker: str) -> bool:
    """The marker of a postscript occurs; P.S. and P.P.S also with spaces."""
    marker = postscript_marker.strip()
    spaced = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    pattern = spaced.get(marker, re.escape(marker.lower()))
    return re.search(pattern, reply.lower()) is not None


def number_placeholders(reply: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders such as [address]."""
    count = sum(_num_bracketed(line) for line in reply.split("\n"))
    return count >= num_placeholders


def _num_bracketed(line: str) -> int:
    """Stretches from a bracket to the next closing one; `\\[.*?\\]` in linear time."""
    count, end = 0, -1
    while (start := line.find("[", end + 1)) >= 0:
        end = line.find("]", start)
        if end < 0:
            break
        count += 1
    return count


def english_capital(reply: str) -> bool:
    """All letters are capital, and there is one."""
    return reply.isupper()


def english_lowercase(reply: str) -> bool:
    """All letters are lower case, and there is one."""
    return reply.islower()


def capital_word_frequency(
    reply: str, *, capital_frequency: int, capital_relation: str
) -> bool:
    """So many words are all in capitals; "I" is one of them."""
    words = _CAPITAL_CANDIDATE.findall(reply)
    count = sum(word.isupper() for word in words)
    return _holds(count, capital_relation, capital_frequency)


def no_comma(reply: str) -> bool:
    """There is no comma."""
    return "," not in reply


def quotation(reply: str) -> bool:
    """Double quotation marks are around the whole reply."""
    text = reply.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def end_checker(reply: str, *, end_phrase: str) -> bool:
    """The reply ends with the phrase, in any case, or with it and a quotation mark."""
    return reply.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def repeat_prompt(reply: str, *, prompt_to_repeat: str) -> bool:
    """The reply begins with the prompt, in any case."""
    return reply.strip().lower().startswith(prompt_to_repeat.strip().lower())


def two_responses(reply: str) -> bool:
    """Two different texts stand on the two sides of `******`."""
    parts = [part.strip() for part in reply.split("******")]
    if not all(parts[1:-1]):
        return False
    given = [part for part in parts if part]
    return len(given) == 2 and given[0] != given[1]


CHECKS: dict[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:forbidden_words": forbidden_words,
    "keywords:frequency": keyword_frequency,
    "keywords:letter_frequency": letter_frequency,
    "length_constraints:number_words": number_words,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:title": title,
    "detectable_format:json_format": json_format,
    "detectable_format:constrained_response": constrained_response,
    "detectable_content:postscript": postscript,
    "detectable_content:number_placeholders": number_placeholders,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "change_case:capital_word_frequency": capital_word_frequency,
    "punctuation:no_comma": no_comma,
    "startend:quotation": quotation,
    "startend:end_checker": end_checker,
    "combination:repeat_prompt": repeat_prompt,
    "combination:two_responses": two_responses,
}
