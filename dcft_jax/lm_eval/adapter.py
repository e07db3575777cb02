"""A model of this project as lm-evaluation-harness wants it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
    get_rolling_token_windows,
    make_disjoint_window,
)
from tqdm import tqdm

from dcft_jax.data.template_chat import TemplateChat
from dcft_jax.evaluation.continuations import Continuation, make_continuation_scorer
from dcft_jax.evaluation.prompt_text import PromptText
from dcft_jax.evaluation.task import Subject
from dcft_jax.lm_eval.generation import (
    Generation,
    generate_texts,
    read_generation,
    stop_ids_of,
)

BLOCK = 16  # batches whose likelihoods are computed, and cached, together


class JaxLM(TemplateLM):
    """The `model` of `lm_eval.simple_evaluate`.

    Texts become tokens, and requests numbers, as in the harness's own `HFLM`: context
    and continuation are encoded together; a context that is too long loses its begin;
    a text is scored in windows that share no token. Control tokens that a text spells
    are control tokens, except in messages of a chat.

    With several processes each makes the same calls and gets all results.

    Args:
      subject: the model; its mesh is set here.
      about: what it is, for the results; JSON-able.
      max_length: tokens that the model reads at most, with those that it generates.
      batch_size: sequences computed at once.
      add_bos: begin every text with the token that begins a sequence, unless it is
        there. None: as the tokenizer itself does (a tokenizer.json that has a
        post-processor for it; never one of ours, a GGUF file or a tokenizer.model).
      seed: of sampled replies.

    Raises:
      ValueError: an option is out of range, or there is no such token.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        about: Mapping[str, Any] | None = None,
        max_length: int = 2048,
        batch_size: int = 16,
        max_gen_toks: int = 256,
        add_bos: bool | None = None,
        seed: int = 0,
    ):
        super().__init__()
        for name, value in (
            ("max_length", max_length),
            ("batch_size", batch_size),
            ("max_gen_toks", max_gen_toks),
        ):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if add_bos and subject.tokenizer.bos_id is None:
            raise ValueError(
                "add_bos=True: the tokenizer has no token that begins a sequence; "
                "leave it out"
            )
        self.subject = subject
        self.max_length = max_length
        self.batch_size = batch_size
        self.max_gen_toks = max_gen_toks
        self._about = dict(about or {})
        self._seed = seed
        self._text = PromptText(subject.tokenizer)
        self._add_bos = self._text.adds_bos if add_bos is None else add_bos
        self._stop_ids = stop_ids_of(subject.tokenizer)
        self._score = make_continuation_scorer(
            subject.model,
            subject.mesh,
            pad_id=subject.tokenizer.pad_id,
            max_length=max_length,
            rows_per_batch=batch_size,
        )

    @property
    def eot_token_id(self) -> int:
        return self._stop_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """What precedes a text without context."""
        bos = self.subject.tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        ids = self._text.encode(string)
        bos = self.subject.tokenizer.bos_id
        add = self._add_bos if add_special_tokens is None else add_special_tokens
        return [bos, *ids] if add and bos is not None and ids[:1] != [bos] else ids

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        windows, owners = [], []
        for i, request in enumerate(requests):
            (text,) = request.args
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(i)
        totals = [0.0] * len(requests)
        scores = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        for i, (log_likelihood, _) in zip(owners, scores, strict=True):
            totals[i] += log_likelihood
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Of (texts or None, tokens of the context, tokens of the continuation)."""
        # White space alone is all continuation.
        pairs = [
            Continuation(context or [self.prefix_token_id], tokens)
            for _, context, tokens in requests
        ]
        for (texts, _, _), pair in zip(requests, pairs, strict=True):
            self._check_continuation(texts, pair)
        answers: list[tuple[float, bool]] = [(math.nan, False)] * len(requests)
        # The longest first: if memory does not suffice, that shows at once.
        order = sorted(range(len(pairs)), key=lambda i: -sum(map(len, pairs[i])))
        num_cut = 0
        with jax.set_mesh(self.subject.mesh):
            for chosen in self._batches(
                order, BLOCK * self.batch_size, "log-likelihoods", disable_tqdm
            ):
                scores = self._score(self.subject.params, [pairs[i] for i in chosen])
                num_cut += int(scores.cut_N.sum())
                for n, i in enumerate(chosen):
                    answers[i] = (-float(scores.nats_N[n]), bool(scores.greedy_N[n]))
                    texts = requests[i][0]
                    if texts is not None:
                        self.cache_hook.add_partial("loglikelihood", texts, answers[i])
        self._warn_if_cut(num_cut, len(requests), self.max_length)
        return answers

    def _check_continuation(
        self, texts: tuple[str, str] | None, pair: Continuation
    ) -> None:
        if not 0 < len(pair.tokens) <= self.max_length:
            context, continuation = texts or ("", "")
            raise ValueError(
                f"the continuation {continuation[:60]!r} of {context[-60:]!r} has "
                f"{len(pair.tokens)} tokens; it must have at least one of its own and "
                f"at most max_length={self.max_length}"
            )

    def generate_until(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[str]:
        groups: dict[Generation, list[int]] = {}  # batches have the same options
        for i, request in enumerate(requests):
            options = read_generation(request.args[1], self.max_gen_toks)
            groups.setdefault(options, []).append(i)
        texts = [""] * len(requests)
        for options, members in groups.items():
            prompts = self._prompts({i: requests[i].args[0] for i in members}, options)
            order = sorted(members, key=lambda i: -len(prompts[i]))
            with jax.set_mesh(self.subject.mesh):
                for chosen in self._batches(
                    order, self.batch_size, "replies", disable_tqdm
                ):
                    replies = generate_texts(
                        self.subject,
                        [prompts[i] for i in chosen],
                        options,
                        stop_ids=self._stops(options),
                        row_ids=chosen,
                        batch_size=self.batch_size,
                        seed=self._seed,
                    )
                    for i, text in zip(chosen, replies, strict=True):
                        texts[i] = text
                        self.cache_hook.add_partial(
                            "generate_until", requests[i].args, text
                        )
        return texts

    def _prompts(
        self, contexts: Mapping[int, str], options: Generation
    ) -> dict[int, list[int]]:
        """Tokens of the contexts, with room for a reply."""
        room = self.max_length - options.max_new_tokens
        if room < 1:
            raise ValueError(
                f"max_gen_toks={options.max_new_tokens} leaves no room for a prompt "
                f"within max_length={self.max_length}; raise max_length, or lower "
                "max_gen_toks in the task's generation_kwargs"
            )
        prompts = {
            i: self.tok_encode(context) or [self.prefix_token_id]
            for i, context in contexts.items()
        }
        num_cut = sum(len(prompt) > room for prompt in prompts.values())
        self._warn_if_cut(num_cut, len(prompts), room)
        return {i: prompt[-room:] for i, prompt in prompts.items()}

    def _stops(self, options: Generation) -> tuple[int, ...]:
        """Tokens that end a reply; stop strings that spell a control token are one."""
        control = self._text.control
        spelt = [control[text] for text in options.until if text in control]
        return tuple(dict.fromkeys((*self._stop_ids, *spelt)))

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt=True
    ) -> str:
        """The conversation as text; without a generation prompt its last message, of
        the assistant, is left open.
        """
        messages = [(message["role"], message["content"]) for message in chat_history]
        if add_generation_prompt:
            return self._text.render(messages)
        return self._text.render(messages[:-1], begun=messages[-1][1])

    @property
    def tokenizer_name(self) -> str:
        """Equal only for tokenizers and chat formats that give the same tokens."""
        return self.subject.tokenizer.content_hash

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        if isinstance(chat_template, str):
            raise ValueError(
                f"apply_chat_template={chat_template!r}: a model has one template "
                "here; give True, or another template to the tokenizer"
            )
        if not chat_template:
            return None
        chat = self.subject.tokenizer.chat
        if isinstance(chat, TemplateChat):
            return chat.template.source
        return chat.content_hash

    def get_model_info(self) -> dict[str, Any]:
        """Goes into `config` of the results."""
        leaves = jax.tree.leaves(self.subject.params)
        return self._about | {
            "model_num_parameters": sum(leaf.size for leaf in leaves),
            "model_dtype": str(self.subject.model.compute_dtype),
            "max_length": self.max_length,
            "batch_size": self.batch_size,
            "add_bos": self._add_bos,
            "sampling_seed": self._seed,
        }

    def _batches(
        self, order: Sequence[int], size: int, what: str, disable_tqdm: bool
    ) -> Iterator[Sequence[int]]:
        """Parts of `order`; the bar moves when the next is asked for."""
        hidden = disable_tqdm or jax.process_index() != 0
        with tqdm(total=len(order), desc=what, disable=hidden) as bar:
            for first in range(0, len(order), size):
                chosen = order[first : first + size]
                yield chosen
                bar.update(len(chosen))

    def _warn_if_cut(self, number: int, total: int, length: int) -> None:
        if number:
            logging.warning(
                "%d of %d contexts lost their begin: they are longer than what "
                "max_length=%d leaves for them (%d tokens)",
                number,
                total,
                self.max_length,
                length,
            )
