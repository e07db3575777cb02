"""Tokenizers of the HuggingFace `tokenizers` library."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.chat_template import ChatTemplate
from dcft_jax.data.template_chat import TemplateChat
from dcft_jax.data.text_parts import (
    Part,
    Place,
    control_pattern,
    cut,
    encoders,
    hide_control,
)


class Layout(NamedTuple):
    """A `TemplateChat` without its tokenizer."""

    template: ChatTemplate
    end_id: int
    stop_ids: tuple[int, ...]
    forgeable: tuple[str, ...]


@dataclass(frozen=True)
class HFTokenizer:
    """Text to token ids and back, see `dcft_jax.data.tokenizer.Tokenizer`.

    Made by `dcft_jax.data.pretrained_tokenizer`.

    Attributes:
        backend: of the library; its special tokens are the control tokens.
        name: where it comes from, for messages.
        content_hash: of all that `backend` consists of.
        special: token by name: "bos_token", "eos_token", "unk_token", "pad_token".
        eos_ids: tokens that end generation.
        layout: the chat format without its tokenizer; None if there is no template.
    """

    backend: tokenizers.Tokenizer = field(repr=False, compare=False)
    name: str = field(compare=False)
    content_hash: str
    vocab_size: int
    special: Mapping[str, str] = field(compare=False)
    eos_ids: tuple[int, ...] = field(compare=False)
    layout: Layout | None = field(compare=False, repr=False)

    @cached_property
    def control(self) -> dict[str, int]:
        """Ids of the control tokens."""
        added = self.backend.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return control_pattern(self.control)

    @property
    def pad_id(self) -> int:
        return self.control[self.special["pad_token"]]

    @property
    def bos_id(self) -> int | None:
        bos = self.special.get("bos_token")
        return None if bos is None else self.control[bos]

    @property
    def chat(self) -> TemplateChat:
        if self.layout is None:
            raise ValueError(
                f"the tokenizer of {self.name} has no chat template; name a .jinja "
                "file in config.tokenizer.chat_template"
            )
        return TemplateChat(self, *self.layout)

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        rows = [self._text_parts(text) for text in texts]
        ids = iter(self.encode_parts([part for parts in rows for part in parts]))
        return [[i for _ in parts for i in next(ids)] for parts in rows]

    def _text_parts(self, text: str) -> list[Part]:
        ((_, hidden),), meaning = hide_control((("user", text),), self.pattern)
        return cut(hidden, self.pattern, hidden=meaning)

    def encode_parts(self, parts: Sequence[Part]) -> list[list[int]]:
        """Ids of text without control tokens, each part as its place asks for.

        Raises:
            ValueError: the library makes a control token out of text.
        """
        ids: list[list[int]] = [[] for _ in parts]
        for place, encoder in self._encoders.items():
            at = [n for n, part in enumerate(parts) if part.place is place]
            texts = [parts[n].text for n in at]
            for n, encoding in zip(
                at,
                encoder.encode_batch_fast(texts, add_special_tokens=False),
                strict=True,
            ):
                ids[n] = encoding.ids
        for part, part_ids in zip(parts, ids, strict=True):
            if forged := self._control_ids.intersection(part_ids):
                raise ValueError(
                    f"the tokenizer of {self.name} turns the text {part.text[:60]!r} "
                    f"into the control token {self.piece(min(forged))!r}"
                )
        return ids

    @cached_property
    def _encoders(self) -> dict[Place, tokenizers.Tokenizer]:
        return encoders(self.backend)

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self.control.values())

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def is_control(self, token: int) -> bool:
        return int(token) in self._control_ids

    def piece(self, token: int) -> str:
        piece = self.backend.id_to_token(int(token))
        return f"<token {int(token)}>" if piece is None else piece

    def save(self, folder: str | os.PathLike) -> None:
        """Writes tokenizer.json, tokenizer_config.json, generation_config.json and
        chat_template.jinja, which transformers reads too.
        """
        folder = Path(folder)
        # The class that takes tokenizer.json as it is; those of the families build
        # parts of it anew.
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self.special,
        }
        stops = self.layout.stop_ids if self.layout else self.eos_ids
        generation = {"eos_token_id": list(stops), "pad_token_id": self.pad_id}
        if self.bos_id is not None:
            generation["bos_token_id"] = self.bos_id
        atomic_write(folder / "tokenizer.json", self.backend.to_str())
        atomic_write(folder / "tokenizer_config.json", json.dumps(config, indent=2))
        atomic_write(
            folder / "generation_config.json", json.dumps(generation, indent=2)
        )
        if self.layout:
            atomic_write(folder / "chat_template.jinja", self.layout.template.source)
