"""Prompts as text that holds control tokens, for tools that pass nothing but text.

Elsewhere in the project a control token that a text spells is ordinary text. Here it is
the control token, as in transformers, so that a conversation can be a text. A message
that spells one is protected: `HIDE` stands behind its first character.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dcft_jax.data import Tokenizer
from dcft_jax.data.chat_format import Messages
from dcft_jax.data.hf_tokenizer import HFTokenizer
from dcft_jax.data.role_symbols import as_written
from dcft_jax.data.template_chat import TemplateChat
from dcft_jax.data.text_parts import Part, Place, control_pattern, cut

HIDE = "\ufdd2"  # a noncharacter of Unicode, which no text holds


@dataclass(frozen=True)
class PromptText:
    """From conversations to text, and from text to tokens."""

    tokenizer: Tokenizer

    @cached_property
    def control(self) -> dict[str, int]:
        """Spelling -> id of every control token."""
        if isinstance(self.tokenizer, HFTokenizer):
            return self.tokenizer.control
        ids = filter(self.tokenizer.is_control, range(self.tokenizer.vocab_size))
        return {self.tokenizer.piece(token): token for token in ids}

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer itself begins every text with `bos_id`."""
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, HFTokenizer) or tokenizer.bos_id is None:
            return False
        return tokenizer.backend.encode("").ids[:1] == [tokenizer.bos_id]

    def encode(self, text: str) -> list[int]:
        """Ids of a text whose control tokens are meant; none is added."""
        parts: list[Part] = []
        for part in cut(text, self._pattern):
            first, *others = part.text.split(HIDE)
            parts.append(part._replace(text=first))
            parts += [Part(other, Place.INSIDE) for other in others]
        ordinary = [part for part in parts if not part.control]
        if isinstance(self.tokenizer, HFTokenizer):
            encoded = iter(self.tokenizer.encode_parts(ordinary))
        else:
            encoded = iter(self.tokenizer.encode_batch([p.text for p in ordinary]))
        return [
            token
            for part in parts
            for token in ([self.control[part.text]] if part.control else next(encoded))
        ]

    def render(self, messages: Messages, begun: str | None = None) -> str:
        """The text after which the model writes the next assistant message.

        `encode` of it gives the ids of `tokenizer.chat.encode_prompt`, but does not cut
        the text where earlier replies begin (see `TemplateChat`).

        Args:
          begun: how that message begins; the model goes on with it.

        Raises:
          ValueError: there is no chat format, or it does not take these messages.
        """
        chat = self.tokenizer.chat
        if isinstance(chat, TemplateChat):
            hidden = [(role, self._hide(content)) for role, content in messages]
            text, _ = chat.template.render(hidden, add_generation_prompt=True)
            return text + self._hide(begun or "")
        text = self._spell(chat.encode_prompt(messages).tolist())
        return text if begun is None else text + self._hide(as_written(begun))

    def _spell(self, ids: Sequence[int]) -> str:
        """The text of tokens, its control tokens spelt and all others protected."""
        text, ordinary = "", []
        for token in ids:
            if self.tokenizer.is_control(token):
                text += self._hide(self.tokenizer.decode(ordinary))
                text += self.tokenizer.piece(token)
                ordinary = []
            else:
                ordinary.append(token)
        return text + self._hide(self.tokenizer.decode(ordinary))

    def _hide(self, text: str) -> str:
        return self._pattern.sub(lambda found: found[0][0] + HIDE + found[0][1:], text)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return control_pattern(self.control)
