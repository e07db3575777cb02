"""From a backend and what a model declares about it to an `HFTokenizer`."""

import hashlib

import tokenizers
from tokenizers import AddedToken

from dcft_jax.data.chat_template import FOLD_SYSTEM, ChatTemplate
from dcft_jax.data.hf_tokenizer import HFTokenizer, Layout
from dcft_jax.data.special_tokens import Declared
from dcft_jax.data.template_probe import (
    Scaffold,
    check_scaffold,
    end_of_turn,
    forgeable,
    probe,
    role_markers,
)


def build_tokenizer(
    backend: tokenizers.Tokenizer,
    declared: Declared,
    name: str,
    fold_system: bool = False,
) -> HFTokenizer:
    """Gives a backend its control tokens, a padding token and the chat format.

    Control tokens are those that the backend or the model calls special, and the added
    tokens that the chat template writes around turns.

    The padding token is the declared one, unless the chat format writes that one: many
    models pad with the token that ends a turn, and who leaves padding out of the loss
    would leave the end of replies out too. Then, or if none is declared, it is the
    first control token that the format never writes, preferably one that does not end
    generation either. No token that counts reads its embedding: padding is a segment of
    its own.

    Args:
        backend: changed in place.
        declared: of the model.
        name: where both come from, for messages.
        fold_system: put system messages into the first user message.

    Raises:
        ValueError: tokens, template and backend do not fit together.
    """
    backend.no_padding()
    backend.no_truncation()
    _add_declared(backend, declared, name)
    special = {
        key: token
        for key, token in declared.special.items()
        if backend.token_to_id(token) is not None
    }
    eos = [special["eos_token"]] if "eos_token" in special else []
    eos_ids = tuple(dict.fromkeys([*_ids(backend, eos), *declared.eos_ids]))
    source, scaffold = "", None
    if declared.template is not None:
        source = _source(declared.template, fold_system)
        scaffold = probe(ChatTemplate(source, name, special))
    pad = _pad_token(backend, special, eos_ids, "\n".join(scaffold or ()), name)
    special = {**special, "pad_token": pad}
    layout = None
    if scaffold is not None:
        template = ChatTemplate(source, name, special)
        layout = _layout(backend, template, scaffold, eos_ids)
    return HFTokenizer(
        backend=backend,
        name=name,
        content_hash=_hash(backend),
        vocab_size=max(backend.get_vocab().values()) + 1,
        special=special,
        eos_ids=eos_ids,
        layout=layout,
    )


def _source(template: str, fold_system: bool) -> str:
    """The template, behind the code that folds system messages unless it has that."""
    if fold_system and not template.startswith(FOLD_SYSTEM):
        return FOLD_SYSTEM + template
    return template


def _hash(backend: tokenizers.Tokenizer) -> str:
    content = backend.to_str().encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _add_declared(backend: tokenizers.Tokenizer, declared: Declared, name: str) -> None:
    for token_id, settings in sorted(declared.added.items()):
        content = settings["content"]
        if backend.token_to_id(content) is None:
            backend.add_tokens([AddedToken(**_settings(settings))])
        if backend.token_to_id(content) != token_id:
            raise ValueError(
                f"{name}: token {content!r} has id {token_id} in tokenizer_config.json "
                f"and {backend.token_to_id(content)} in the vocabulary; the files "
                "belong to different models"
            )
        if settings.get("special"):
            _make_special(backend, content)
    for key in ("bos_token", "eos_token"):
        token = declared.special.get(key)
        if token is not None and backend.token_to_id(token) is None:
            raise ValueError(
                f"{name}: {key} is {token!r}, which the vocabulary lacks; the files "
                "belong to different models"
            )
    # A token without an id has no embedding either: it is left out.
    for token in (*declared.special.values(), *declared.extra):
        if backend.token_to_id(token) is not None:
            _make_special(backend, token)


def _settings(settings) -> dict:
    fields = ("content", "lstrip", "rstrip", "single_word", "normalized", "special")
    return {field: settings[field] for field in fields if field in settings}


def _make_special(backend: tokenizers.Tokenizer, content: str) -> None:
    """Makes a token of the vocabulary a control token, and keeps its settings."""
    added = {t.content: t for t in backend.get_added_tokens_decoder().values()}
    token = added.get(content, AddedToken(content, normalized=False, special=False))
    if not token.special:
        token.special = True
        backend.add_special_tokens([token])


def _layout(
    backend: tokenizers.Tokenizer,
    template: ChatTemplate,
    scaffold: Scaffold,
    eos_ids: tuple[int, ...],
) -> Layout:
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    for marker in sorted(role_markers(scaffold, added)):
        _make_special(backend, marker)
    tokens = backend.get_added_tokens_decoder().values()
    control = {token.content: token for token in tokens if token.special}
    bos = template.variables.get("bos_token")
    check_scaffold(scaffold, control, bos, template.name)
    for marker in role_markers(scaffold, control):
        token = control[marker]
        if token.lstrip or token.rstrip or token.single_word:
            raise ValueError(
                f"chat template of {template.name} writes {marker!r}, which takes away "
                "white space around it (lstrip, rstrip or single_word in its "
                "settings); such tokens are not supported in a template"
            )
    end_id = _ids(backend, [end_of_turn(scaffold, control, template.name)])[0]
    stop_ids = tuple(dict.fromkeys([end_id, *eos_ids]))
    return Layout(template, end_id, stop_ids, forgeable(scaffold, control))


def _pad_token(
    backend: tokenizers.Tokenizer,
    special: dict[str, str],
    eos_ids: tuple[int, ...],
    written: str,
    name: str,
) -> str:
    declared = special.get("pad_token")
    if declared is not None and declared not in written:
        return declared
    free = [
        (token_id in eos_ids, token_id, token.content)
        for token_id, token in backend.get_added_tokens_decoder().items()
        if token.special
        and token.content not in written
        and token.content != special.get("bos_token")
    ]
    if free:
        return min(free)[2]
    raise ValueError(
        f"the tokenizer of {name} has no token to pad with: all its control tokens are "
        "part of conversations or end them; declare an unused one as pad_token in its "
        "tokenizer_config.json"
    )


def _ids(backend: tokenizers.Tokenizer, tokens: list[str]) -> list[int]:
    return [i for token in tokens if (i := backend.token_to_id(token)) is not None]
