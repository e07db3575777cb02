"""Short English conversations from the `chatterbot-corpus` package (BSD licence)."""

from importlib.resources import files
from itertools import pairwise
from typing import Any

import yaml
from ml_collections import ConfigDict

from dcft_jax.data.example import Example, SourceData
from dcft_jax.data.sources.fields import source_fields

# What an empty `topics` means. Left out after reading them: gossip (about named
# people), history, humor and politics (partisan or tasteless), money (advice), movies
# and sports (fragments, some crude), psychology (the replies agree with insults).
TOPICS = (
    "ai",
    "botprofile",
    "coding",
    "computers",
    "conversations",
    "emotion",
    "food",
    "greetings",
    "health",
    "literature",
    "science",
    "tech_support",
    "trivia",
)

# Entries of these are a question and several replies to it, not turns.
_ALTERNATIVE_REPLIES = {"computers", "emotion"}

# Prompts of the kept topics that nobody should learn to banter about.
_UNSUITABLE = {
    "are you stupid",
    "bend over",
    "can you mate",
    "i do not want to die",
    "i hope that you die",
    "robots are stupid",
    "robots should die",
}


def chatterbot(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str = "fail"
) -> SourceData:
    """Question-reply pairs and a few longer conversations, the same text only once.

    Fields of `source`: `topics`, names of topics, empty for all suitable ones;
    `max_chars`, the longest conversation to keep in characters, 0 for no limit.
    Entries that are not a list of at least two texts are always left out and counted
    as skipped: the package has such entries, and its reader cannot mend them.

    Raises:
        ValueError: for an unknown topic, or if no conversation is left.
    """
    fields = source_fields(source, topics=(), max_chars=0)
    conversations: dict[tuple[str, ...], str] = {}
    skipped = 0
    for topic in fields.topics or TOPICS:
        kept, bad = _read_topic(topic)
        skipped += bad
        for turns in kept:
            if not fields.max_chars or sum(map(len, turns)) <= fields.max_chars:
                conversations.setdefault(turns, topic)
    if not conversations:
        raise ValueError(f"no conversation has at most max_chars={fields.max_chars}")
    examples = [_example(turns, topic) for turns, topic in conversations.items()]
    return SourceData({"all": examples}, skipped)


def _read_topic(topic: str) -> tuple[list[tuple[str, ...]], int]:
    """Suitable conversations of a topic and the number of malformed entries."""
    folder = files("chatterbot_corpus") / "data" / "english"
    known = sorted(f.name.removesuffix(".yml") for f in folder.iterdir())
    if topic not in known:
        raise ValueError(f"unknown chatterbot topic {topic!r}; there are {known}")
    text = (folder / f"{topic}.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)["conversations"]
    whole = [entry for entry in entries if _is_conversation(entry)]
    conversations = [turns for entry in whole for turns in _conversations(topic, entry)]
    return conversations, len(entries) - len(whole)


def _is_conversation(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) >= 2
        and all(isinstance(turn, str) and turn.strip() for turn in entry)
    )


def _conversations(topic: str, entry: list[str]) -> list[tuple[str, ...]]:
    """Conversations of an entry; each ends with a reply."""
    turns = tuple(turn.strip() for turn in entry)
    if turns[0].lower().rstrip("?!.") in _UNSUITABLE:
        return []
    if topic in _ALTERNATIVE_REPLIES:
        return [(turns[0], reply) for reply in turns[1:]]
    if any(before == after for before, after in pairwise(turns)):
        return []
    return [turns[: len(turns) // 2 * 2]]


def _example(turns: tuple[str, ...], topic: str) -> Example:
    roles = ("user", "assistant") * (len(turns) // 2)
    return Example(
        messages=tuple(zip(roles, turns, strict=True)),
        source="chatterbot",
        metadata={"topic": topic, "licence": "BSD"},
    )
