"""The records that sources hand to the rest of the data room."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One conversation to learn from.

    Attributes:
        messages: (role, content) pairs; roles are "system", "user" and
            "assistant", and the last one is "assistant".
        source: name of the source inside its ability.
        single_reference: True if exactly one reply is right, so that an exact match
            of a greedy reply is meaningful.
        tests: hidden assert statements for a reply that is code.
        metadata: small JSON-able extras such as difficulty or licence.
    """

    messages: tuple[tuple[str, str], ...]
    source: str
    single_reference: bool = False
    tests: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def prompt(self) -> tuple[tuple[str, str], ...]:
        """Everything before the last assistant message."""
        return self.messages[:-1]

    @property
    def reply(self) -> str:
        return self.messages[-1][1]


@dataclass(frozen=True)
class SourceData:
    """What a source gives.

    Attributes:
        splits: either {"train", "mix_val", "test"}, when the source keeps them apart
            itself, or {"all"}, a finite set that is still to be split. {"all"} may
            come with one of "mix_val" and "test"; only the other is then split off.
        skipped: malformed rows that were left out.
    """

    splits: Mapping[str, Sequence[Example]]
    skipped: int = 0


def normalise(text: str) -> str:
    """Folds case, white space and Unicode composition, which never tell tasks apart."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def prompt_key(example: Example) -> bytes:
    """16-byte identity of the prompt: equal for prompts that are equal once normalised.

    BLAKE2b, not Python's `hash`, because the key must be the same in every process
    and uniform in all of its bits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for role, content in example.prompt:
        digest.update(f"{role}\x1f{normalise(content)}\x1e".encode())
    return digest.digest()
