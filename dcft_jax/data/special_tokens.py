"""The special tokens and templates that a folder of HuggingFace files declares."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class Declared:
    """What a model says about its tokens.

    Attributes:
        special: token by name, of `NAMES`; only those that are set.
        extra: further special tokens.
        added: settings of added tokens by id, as in `added_tokens_decoder`.
        eos_ids: tokens that end generation, besides `special["eos_token"]`.
        template: Jinja text of the chat template; None if there is none.
        settings: the rest, such as "legacy" and "add_prefix_space".
    """

    special: Mapping[str, str]
    extra: tuple[str, ...] = ()
    added: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    eos_ids: tuple[int, ...] = ()
    template: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_declared(folder: Path) -> Declared:
    """Reads tokenizer_config.json, special_tokens_map.json, added_tokens.json,
    generation_config.json and chat_template.jinja, those that exist.

    Raises:
        ValueError: a file is no JSON object, or there are several templates and none
            is called "default".
    """
    config = _read_json(folder / "tokenizer_config.json")
    older = _read_json(folder / "special_tokens_map.json")
    older_added = _read_json(folder / "added_tokens.json")
    added = {i: {"content": token} for token, i in older_added.items()}
    newer_added = config.get("added_tokens_decoder", {})
    added |= {int(i): token for i, token in newer_added.items()}
    generation = _read_json(folder / "generation_config.json")
    special = {
        name: content
        for name in NAMES
        if (content := _content(config.get(name, older.get(name)))) is not None
    }
    extra = config.get("additional_special_tokens") or config.get(
        "extra_special_tokens", older.get("additional_special_tokens")
    )
    extra = extra.values() if isinstance(extra, dict) else extra or ()
    eos_ids = generation.get("eos_token_id")
    return Declared(
        special=special,
        extra=tuple(content for token in extra if (content := _content(token))),
        added=added,
        eos_ids=tuple(eos_ids) if isinstance(eos_ids, list) else _some(eos_ids),
        template=_template(folder, config),
        settings=config,
    )


def _some(value: int | None) -> tuple[int, ...]:
    return () if value is None else (value,)


def _content(token: Any) -> str | None:
    """A token is written as its text or as an object with settings."""
    return token.get("content") if isinstance(token, dict) else token


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    if (path := folder / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict):
        if len(template) > 1 and "default" not in template:
            raise ValueError(
                f"{folder / 'tokenizer_config.json'} has the chat templates "
                f"{sorted(template)} and none called 'default'; write the one you want "
                "to a file and name it in config.tokenizer.chat_template"
            )
        only = next(iter(template.values()), None)
        return template.get("default", only)
    return template


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON object")
    return content
