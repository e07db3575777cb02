"""Rendering Jinja chat templates, which are programs of strangers, in a sandbox."""

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dcft_jax.data.chat_format import Messages

# The day that templates take for today: the one that Llama 3.2's own template falls
# back to. With the real one, packed rows would change every midnight.
TODAY = datetime.datetime(2024, 7, 26)

_MISTAKES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)

# Noncharacters of Unicode, which no text holds; they mark `{% generation %}` blocks.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"

# Puts a system message into the first user message, for templates that take none.
FOLD_SYSTEM = """\
{%- if messages and messages[0]['role'] == 'system' -%}
{%- if messages | length < 2 or messages[1]['role'] != 'user' -%}
{{ raise_exception('a user message must follow the system message') }}
{%- endif -%}
{%- set folded = messages[0]['content'] + '\\n\\n' + messages[1]['content'] -%}
{%- set messages = [{'role': 'user', 'content': folded}] + messages[2:] -%}
{%- endif -%}
"""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the variables it may use.

    Attributes:
        source: Jinja text.
        name: where it comes from, for messages.
        variables: special tokens by the names templates know them by: "bos_token" etc.
    """

    source: str = field(repr=False)
    name: str
    variables: Mapping[str, Any]

    @cached_property
    def compiled(self) -> jinja2.Template:
        try:
            return _ENVIRONMENT.from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(
                f"chat template of {self.name}, line {error.lineno}: {error.message}; "
                "give another one in config.tokenizer.chat_template"
            ) from error

    def render(
        self, messages: Messages, add_generation_prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and where its `{% generation %}` blocks are.

        Tools and documents are never given: what is rendered is text messages only.

        Raises:
            ValueError: the template refuses the conversation or fails on it.
        """
        dicts = [{"role": role, "content": content} for role, content in messages]
        if any(mark in m["content"] for m in dicts for mark in (_OPEN, _CLOSE)):
            raise ValueError(
                "a message holds U+FDD0 or U+FDD1, which are no characters of text"
            )
        try:
            text = self.compiled.render(
                **self.variables,
                messages=dicts,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
            )
        # Whatever a template does wrong (a missing key, a sum of text and nothing) is
        # an error of the template for this conversation.
        except (jinja2.TemplateError, *_MISTAKES) as error:
            raise ValueError(self._refusal(messages, str(error))) from error
        return _take_marks(text)

    def _refusal(self, messages: Messages, reason: str) -> str:
        roles = [role for role, _ in messages]
        advice = ""
        if "system" in roles:
            advice = (
                ". If it takes no system message, set config.tokenizer.fold_system = "
                "True to put it into the first user message"
            )
        return (
            f"chat template of {self.name} refuses a conversation with roles {roles}: "
            f"{reason}{advice}"
        )


def _take_marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    parts = re.split(f"[{_OPEN}{_CLOSE}]", text)
    borders, position = [], 0
    for part in parts[:-1]:
        position += len(part)
        borders.append(position)
    return "".join(parts), list(zip(borders[::2], borders[1::2], strict=True))


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` ... `{% endgeneration %}`: what the model writes."""

    tags = {"generation"}  # noqa: RUF012, the name and type that Jinja wants

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_mark")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{_OPEN}{caller()}{_CLOSE}"


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False
):
    # Jinja's own filter escapes HTML.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _environment() -> ImmutableSandboxedEnvironment:
    """The dialect of chat templates, as transformers defines it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TODAY.strftime
    return environment


_ENVIRONMENT = _environment()
