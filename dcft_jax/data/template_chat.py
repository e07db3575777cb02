"""Conversations to tokens by a model's own chat template, with exact loss masks."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dcft_jax.data.chat_format import Encoded, Messages
from dcft_jax.data.chat_template import ChatTemplate
from dcft_jax.data.text_parts import Part, cut, hide_control

if TYPE_CHECKING:
    from dcft_jax.data.hf_tokenizer import HFTokenizer

Span = tuple[int, int]


@dataclass(frozen=True)
class TemplateChat:
    """The layout of a Jinja chat template, see `ChatFormat`.

    For ordinary content the ids are those of `apply_chat_template` in transformers.
    They differ in three cases, by intent. Control tokens spelt out in a message are
    ordinary text here. The text is cut where a reply begins, as it is in generation, so
    no token holds the end of the prompt and the begin of the reply, and the prompt has
    the same tokens as alone; this shows only where a reply opens with white space, or
    in a tokenizer that splits the white space of a prompt by what follows. Templates
    that write today's date always get the same one.

    A reply is trained from the end of its generation prompt on: text that a template
    adds there, such as Qwen3's empty `<think>` block, is what the model will have to
    write. Where a template rewrites earlier turns (Qwen3 drops their reasoning), they
    are trained as the template writes them.

    Attributes:
        tokenizer: that encodes the text.
        template: of the model.
        end_id: the token that ends an assistant turn.
        stop_ids: all that end generation.
        forgeable: text that prompts may not hold, see `template_probe.forgeable`.
    """

    tokenizer: "HFTokenizer"
    template: ChatTemplate
    end_id: int
    stop_ids: tuple[int, ...]
    forgeable: tuple[str, ...]

    @property
    def content_hash(self) -> str:
        variables = sorted(self.template.variables.items())
        content = (self.tokenizer.content_hash, self.template.source, variables)
        return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()

    def encode(self, messages: Messages) -> Encoded:
        return self.encode_batch([messages])[0]

    def encode_batch(self, conversations: Sequence[Messages]) -> list[Encoded]:
        return self._assemble([self._parts(c) for c in conversations])

    def encode_prompt(self, messages: Messages) -> np.ndarray:
        self._check_prompts(messages)
        hidden, meaning = hide_control(messages, self.tokenizer.pattern)
        text, marked = self.template.render(hidden, add_generation_prompt=True)
        # Cut where earlier replies begin, as in training.
        spans = self._spans(text, marked, hidden)
        parts = cut(text, self.tokenizer.pattern, spans, meaning)
        return self._assemble([parts])[0][0]

    def _parts(self, messages: Messages) -> list[Part]:
        self._check_prompts(messages)
        hidden, meaning = hide_control(messages, self.tokenizer.pattern)
        text, marked = self.template.render(hidden)
        spans = self._spans(text, marked, hidden)
        return cut(text, self.tokenizer.pattern, spans, meaning)

    def _spans(
        self, text: str, marked: Sequence[Span], messages: Messages
    ) -> list[Span]:
        """Where what the model writes begins and ends."""
        begins = self._marked(text, marked) if marked else self._begins(text, messages)
        spans = [(begin, self._end(text, begin)) for begin in begins]
        for (_, end), (begin, _) in pairwise(spans):
            if begin < end:
                raise ValueError(
                    f"chat template of {self.template.name}: a reply begins before the "
                    f"end of the one before it, at {text[begin : begin + 40]!r}"
                )
        return spans

    def _begins(self, text: str, messages: Messages) -> list[int]:
        """Where replies begin: where the generation prompt for them ends."""
        begins = []
        for i, (role, _) in enumerate(messages):
            if role != "assistant":
                continue
            prompt, _ = self.template.render(messages[:i], add_generation_prompt=True)
            if not text.startswith(prompt):
                raise ValueError(
                    f"chat template of {self.template.name} writes what precedes reply "
                    f"{len(begins) + 1} differently once the conversation goes on; "
                    "where that reply begins cannot be told. Give "
                    "config.tokenizer.chat_template a template that keeps history, or "
                    "one with {% generation %} around replies"
                )
            begins.append(len(prompt))
        return begins

    def _marked(self, text: str, marked: Sequence[Span]) -> list[int]:
        """Where the `{% generation %}` blocks of a template begin."""
        for begin, end in marked:
            unmarked = text[end : self._end(text, begin)]
            if re.search(r"\S", self.tokenizer.pattern.sub("", unmarked)):
                raise ValueError(
                    f"chat template of {self.template.name} ends a generation block "
                    f"before the end of the turn, at {unmarked!r}; mark whole replies"
                )
        return [begin for begin, _ in marked]

    def _end(self, text: str, begin: int) -> int:
        """End of the turn that is written from `begin` on, its last token included."""
        match = self.tokenizer.pattern.search(text, begin)
        if match is None or self.tokenizer.control[match[0]] != self.end_id:
            found = "nothing" if match is None else repr(match[0])
            raise ValueError(
                f"chat template of {self.template.name}: the reply that begins with "
                f"{text[begin : begin + 40]!r} should end with "
                f"{self.tokenizer.piece(self.end_id)!r}, but {found} follows it"
            )
        return match.end()

    def _check_prompts(self, messages: Messages) -> None:
        for role, content in messages:
            forged = [text for text in self.forgeable if text in content]
            if role != "assistant" and forged:
                raise ValueError(
                    f"a {role} message holds {forged[0]!r}, which is how the chat "
                    f"template of {self.template.name} ends a message; the model could "
                    f"not tell the two apart: change or drop {content[:60]!r}"
                )

    def _assemble(self, rows: Sequence[Sequence[Part]]) -> list[Encoded]:
        texts = [part for parts in rows for part in parts if not part.control]
        ids_of_text = iter(self.tokenizer.encode_parts(texts))
        encoded = []
        for parts in rows:
            tokens: list[int] = []
            mask: list[bool] = []
            for part in parts:
                control = self.tokenizer.control
                ids = [control[part.text]] if part.control else next(ids_of_text)
                tokens += ids
                mask += [part.trained] * len(ids)
            encoded.append((np.array(tokens, np.int32), np.array(mask, bool)))
        return encoded
