"""What a chat template writes around messages, learnt from one small conversation."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from dcft_jax.data.chat_template import ChatTemplate
from dcft_jax.data.text_parts import control_pattern

# Words that no template writes itself and that survive its trimming.
SYSTEM, USER, REPLY, NEXT = "systemQ7", "userQ7", "replyQ7", "nextQ7"

_REASONING = {"<think>", "</think>"}

# Spellings of control tokens: as text they would be cut into pieces.
_LOOKS_CONTROL = re.compile(
    r"<\|[^<>|\s]+\|>|<(?:start|end)_of_\w+>|</?s>|<(?:bos|eos|pad)>"
)


class Scaffold(NamedTuple):
    """The text of a template around messages.

    Attributes:
        opening: before the first user message.
        prompt_end: from a user message to where the model begins to write.
        lead_in: what the template writes between there and the reply.
        closing: from a reply to the end of the conversation.
        between: from a reply to the next user message.
        after_system: from a system message to the user's, "" if there can be none.
    """

    opening: str
    prompt_end: str
    lead_in: str
    closing: str
    between: str
    after_system: str


def probe(template: ChatTemplate) -> Scaffold:
    """Renders a conversation and takes it apart.

    Raises:
        ValueError: the template cannot be rendered, leaves messages out, or what it
            writes before a reply is not what it writes as a prompt.
    """
    turns = (("user", USER), ("assistant", REPLY))
    prompt, _ = template.render(turns[:1], add_generation_prompt=True)
    whole, _ = template.render(turns)
    longer, _ = template.render((*turns, ("user", NEXT)))
    opening, user, prompt_end = prompt.partition(USER)
    reply_at = whole.rfind(REPLY)
    _, again, next_user = longer.partition(REPLY)
    between, next_word, _ = next_user.partition(NEXT)
    if not (user and again and next_word and reply_at > 0):
        raise ValueError(f"chat template of {template.name} leaves messages out")
    if not whole.startswith(prompt):
        raise ValueError(
            f"chat template of {template.name}: a conversation does not begin with its "
            f"own prompt: {prompt!r} against {whole!r}. Where replies begin cannot be "
            "told; give config.tokenizer.chat_template a template that keeps them alike"
        )
    return Scaffold(
        opening=opening,
        prompt_end=prompt_end,
        lead_in=whole[len(prompt) : reply_at],
        closing=whole[reply_at + len(REPLY) :],
        between=between,
        after_system=_after_system(template),
    )


def _after_system(template: ChatTemplate) -> str:
    try:
        text, _ = template.render((("system", SYSTEM), ("user", USER)))
    except ValueError:  # it takes no system message, or none without a reply
        return ""
    _, _, rest = text.partition(SYSTEM)
    after, user, _ = rest.partition(USER)
    return after if user else ""


def role_markers(scaffold: Scaffold, added: Iterable[str]) -> set[str]:
    """Added tokens of the template that stand around turns.

    Not those of `lead_in`, and never `<think>`: a model writes it itself, so replies
    may hold it, and some templates end their prompts with it.
    """
    pattern = control_pattern(added)
    written = (
        scaffold.opening,
        scaffold.prompt_end,
        scaffold.closing,
        scaffold.between,
        scaffold.after_system,
    )
    found = {token for text in written for token in pattern.findall(text)}
    return found - _REASONING


def check_scaffold(
    scaffold: Scaffold, control: Iterable[str], bos: str | None, name: str
) -> None:
    """Refuses a template whose turns this tokenizer cannot tell apart.

    Args:
        scaffold: of the template.
        control: the control tokens of the tokenizer.
        bos: the one that begins a sequence.
        name: of the template.

    Raises:
        ValueError: the template spells control tokens that the tokenizer lacks, writes
            the beginning of the sequence twice, or would have the model write its own
            role header.
    """
    known = control_pattern(control)
    for text in scaffold:
        if unknown := _LOOKS_CONTROL.findall(known.sub("\0", text)):
            raise ValueError(
                f"chat template of {name} writes {unknown[0]!r}, which is no token of "
                "this tokenizer and would be cut into pieces; the template belongs to "
                "another model: give config.tokenizer.chat_template the right one"
            )
    if bos is not None and scaffold.opening.startswith(bos * 2):
        raise ValueError(f"chat template of {name} writes {bos!r} twice in a row")
    header = known.sub("", scaffold.lead_in)
    if re.search(r"\w", re.sub(r"</?\w+>", "", header)):
        raise ValueError(
            f"chat template of {name} writes {scaffold.lead_in!r} before a reply, but "
            "not at the end of a prompt: the model would be trained to write it. Give "
            "config.tokenizer.chat_template one that heeds add_generation_prompt"
        )


def end_of_turn(scaffold: Scaffold, control: Iterable[str], name: str) -> str:
    """The control token that ends an assistant turn.

    Raises:
        ValueError: there is none, so that generation could never stop.
    """
    match = control_pattern(control).search(scaffold.closing)
    if match is None or re.search(r"\w", scaffold.closing[: match.start()]):
        raise ValueError(
            f"chat template of {name} ends a reply with {scaffold.closing!r}: there is "
            "no control token that a model could stop at; give "
            "config.tokenizer.chat_template one that writes the end of a turn"
        )
    return match[0]


def forgeable(scaffold: Scaffold, control: Iterable[str]) -> tuple[str, ...]:
    """Text that ends a message without a control token, such as Llama 2's `[/INST]`.

    A user who types it looks to the model like the end of that message.
    """
    pattern = control_pattern(control)
    borders = (scaffold.after_system, scaffold.prompt_end)
    return tuple(
        border.strip()
        for border in borders
        if border.strip() and not pattern.search(border)
    )
