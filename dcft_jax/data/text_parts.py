"""Cutting a rendered conversation into control tokens and the text between them.

A tokenizer that looks for control tokens in a text cannot know who wrote them: the
template, or a user who types "<|im_end|>". So the text is cut at those that the
template wrote, and each part is encoded by itself, which is also what a tokenizer does
inside: text is normalised and merged only between control tokens.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import tokenizers

from dcft_jax.data.chat_format import Messages


class Place(Enum):
    """Where a part of a text stands: it decides about the space some models put in
    front of a text.
    """

    START = "at the start of the text"
    AFTER = "after a control token"
    INSIDE = "after other text"


class Part(NamedTuple):
    text: str
    place: Place
    control: bool = False
    trained: bool = False


def control_pattern(control: Iterable[str]) -> re.Pattern[str]:
    """Matches any control token; of two that start alike, the longer."""
    by_length = sorted(control, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, by_length)) or "(?!)")


def hide_control(
    messages: Messages, pattern: re.Pattern[str]
) -> tuple[Messages, dict[str, str]]:
    """Messages with one private character for each control token that they spell out.

    Returns:
        The messages, and the control token that each private character stands for. The
        characters are of a private plane of Unicode and occur in no message.
    """
    forged = sorted({m for _, text in messages for m in pattern.findall(text)})
    if not forged:
        return messages, {}
    used = {char for _, text in messages for char in text}
    free = (char for char in map(chr, range(0xF0000, 0xFFFFE)) if char not in used)
    char_of = dict(zip(forged, free, strict=False))
    return tuple(
        (role, pattern.sub(lambda match: char_of[match[0]], text))
        for role, text in messages
    ), {char: token for token, char in char_of.items()}


def cut(
    text: str,
    pattern: re.Pattern[str],
    spans: Sequence[tuple[int, int]] = (),
    hidden: Mapping[str, str] | None = None,
) -> list[Part]:
    """The parts of a text, cut at its control tokens and where trained spans begin.

    Args:
        text: rendered; the control tokens in it are the template's.
        pattern: of `control_pattern`.
        spans: where trained text begins and ends, in order.
        hidden: of `hide_control`. What a character stands for is spelt out again and
            cut after its first character, so that it is in no part as a whole.
    """
    begins = [begin for begin, _ in spans]
    hidden = hidden or {}
    parts, position = [], 0
    for match in pattern.finditer(text):
        parts += _run(text, position, match.start(), begins, hidden)
        parts.append((match.start(), Part(match[0], Place.AFTER, control=True)))
        position = match.end()
    parts += _run(text, position, len(text), begins, hidden)
    return [part._replace(trained=_covers(spans, at)) for at, part in parts]


def _run(
    text: str, start: int, end: int, begins: Sequence[int], hidden: Mapping[str, str]
) -> list[tuple[int, Part]]:
    """The parts of `text[start:end]`, which has no control token, and their places."""
    cuts = begins[bisect_right(begins, start) : bisect_left(begins, end)]
    pieces = []
    for a, b in zip([start, *cuts], [*cuts, end], strict=True):
        pieces += _spell_out(text[a:b], a, hidden)
    first = Place.AFTER if start else Place.START
    return [
        (at, Part(piece, Place.INSIDE if n else first))
        for n, (at, piece) in enumerate(pieces)
    ]


def _spell_out(
    run: str, start: int, hidden: Mapping[str, str]
) -> list[tuple[int, str]]:
    pieces, at, piece = [], start, ""
    for text in re.split(f"([{''.join(hidden)}])", run) if hidden else [run]:
        if text in hidden:
            pieces.append((at, piece + hidden[text][0]))
            at, piece = start, hidden[text][1:]
        else:
            piece += text
        start += len(text)
    return [(at, piece) for at, piece in [*pieces, (at, piece)] if piece]


def _covers(spans: Sequence[tuple[int, int]], position: int) -> bool:
    return any(begin <= position < end for begin, end in spans)


def encoders(backend: tokenizers.Tokenizer) -> dict[Place, tokenizers.Tokenizer]:
    """The tokenizer for each place: itself, or without the space it puts in front."""
    spec = json.loads(backend.to_str())
    found = {Place.START: backend}
    for place in (Place.AFTER, Place.INSIDE):
        changed = spec | {
            field: _without_prefix(spec[field], place)
            for field in ("normalizer", "pre_tokenizer")
        }
        found[place] = (
            backend
            if changed == spec
            else tokenizers.Tokenizer.from_str(json.dumps(changed))
        )
    return found


def _without_prefix(spec: Any, place: Place) -> Any:
    """The settings of a normalizer or pre-tokenizer that adds no space at `place`."""
    if spec is None:
        return None
    for field in ("normalizers", "pretokenizers"):
        if field in spec:
            kept = [_without_prefix(part, place) for part in spec[field]]
            return spec | {field: [part for part in kept if part is not None]}
    if spec.get("prepend_scheme") == "first" or (
        spec.get("prepend_scheme") == "always" and place is Place.INSIDE
    ):
        return spec | {"prepend_scheme": "never"}
    if place is Place.INSIDE:
        if spec["type"] == "Prepend":
            return None
        if spec.get("add_prefix_space"):
            return spec | {"add_prefix_space": False}
    return spec
