"""Our SentencePiece tokenizers as HuggingFace ones: the same ids, the same chats."""

from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, normalizers

from dcft_jax.data.build_tokenizer import build_tokenizer
from dcft_jax.data.hf_tokenizer import HFTokenizer
from dcft_jax.data.sentencepiece_convert import Kind, Piece, byte_pair_backend
from dcft_jax.data.sentencepiece_tokenizer import (
    BOS,
    END,
    PAD,
    ROLES,
    SPACE_MARK,
    SentencePieceTokenizer,
)
from dcft_jax.data.special_tokens import Declared

_BPE = 2  # TrainerSpec.ModelType
# A noncharacter of Unicode, which no text holds.
_HIDE = "\ufdd2"


def to_huggingface(tokenizer: SentencePieceTokenizer, name: str) -> HFTokenizer:
    """The tokenizer with its chat format, as transformers and others read them.

    Spaces are spaces in the vocabulary, not U+2581, so nothing of a text is replaced
    and U+2581 itself falls back to its bytes, as here. `apply_chat_template` gives the
    ids of `RoleSymbols`, also for messages that spell a control symbol: the template
    puts U+FDD2 behind its first character, where the normalizer takes it out again
    after control symbols were looked for. (Plain text handed to the exported tokenizer
    is not protected so; there `split_special_tokens=True` is.)

    Args:
        tokenizer: a byte-pair model that changes no text, as `train_tokenizer` makes.
        name: where it comes from, for messages.

    Raises:
        ValueError: the model is another one; its ids could not be kept.
    """
    pieces = _pieces(tokenizer, name)
    control = [piece.text for piece in pieces if piece.kind == Kind.CONTROL]
    backend = byte_pair_backend(pieces, unk=None, prefix="never")
    backend.pre_tokenizer = None  # pyright: ignore
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(_hidden(symbol), symbol) for symbol in control]
    )
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    declared = Declared(
        special={"bos_token": BOS, "eos_token": END, "pad_token": PAD},
        template=chat_template(control),
    )
    return build_tokenizer(backend, declared, name)


def chat_template(control: list[str]) -> str:
    """The layout of `RoleSymbols` as a Jinja template.

    Args:
        control: symbols that stay text when a message spells them.
    """
    symbols = ", ".join(f"'{symbol}'" for symbol in control)
    return _TEMPLATE.replace("SYMBOLS", symbols)


_TEMPLATE = f"""\
{{{{- bos_token }}}}
{{%- for message in messages %}}
    {{%- if message['role'] not in {list(ROLES)} %}}
        {{{{- raise_exception('roles are system, user and assistant') }}}}
    {{%- endif %}}
    {{%- set turn = namespace(text=message['content']) %}}
    {{%- for symbol in [SYMBOLS] %}}
        {{%- set hidden = symbol[0] + '{_HIDE}' + symbol[1:] %}}
        {{%- set turn.text = turn.text | replace(symbol, hidden) %}}
    {{%- endfor %}}
    {{{{- '<' + message['role'] + '>' }}}}
    {{%- if message['role'] == 'assistant' %}}
        {{%- generation %}}
            {{{{- ' ' + turn.text + eos_token }}}}
        {{%- endgeneration %}}
    {{%- else %}}
        {{{{- ' ' + turn.text + eos_token }}}}
    {{%- endif %}}
{{%- endfor %}}
{{%- if add_generation_prompt %}}
    {{{{- '<assistant>' }}}}
{{%- endif %}}"""


def _hidden(symbol: str) -> str:
    return symbol[0] + _HIDE + symbol[1:]


def _pieces(tokenizer: SentencePieceTokenizer, name: str) -> list[Piece]:
    """Pieces by id, with spaces as spaces; raises ValueError, see `to_huggingface`."""
    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore
    proto.ParseFromString(tokenizer.processor.serialized_model_proto())
    _check_text_is_kept(proto, name)
    kinds = (Kind.NORMAL, Kind.UNKNOWN, Kind.CONTROL, Kind.BYTE)
    other = [p.piece for p in proto.pieces if p.type not in kinds]
    pieces = [
        Piece(p.piece.replace(SPACE_MARK, " "), -p.score, p.type) for p in proto.pieces
    ]
    ranks = [piece.rank for piece in pieces if piece.kind == Kind.NORMAL]
    if other or len(set(ranks)) < len(ranks):
        what = f"the user-defined or unused piece {other[0]!r}" if other else ""
        raise ValueError(
            f"tokenizer of {name}: it has {what or 'pieces of the same score'}, which "
            "a HuggingFace tokenizer would treat otherwise; it cannot be exported"
        )
    return pieces


def _check_text_is_kept(proto, name: str) -> None:
    spec = proto.normalizer_spec
    wrong = {
        "model_type is not BPE": proto.trainer_spec.model_type != _BPE,
        f"normalization rule {spec.name!r}": bool(spec.precompiled_charsmap),
        "add_dummy_prefix": spec.add_dummy_prefix,
        "remove_extra_whitespaces": spec.remove_extra_whitespaces,
        "no escape_whitespaces": not spec.escape_whitespaces,
    }
    found = [what for what, is_so in wrong.items() if is_so]
    if found:
        raise ValueError(
            f"tokenizer of {name}: {', '.join(found)}; only byte-pair SentencePiece "
            "models that change no text, as those trained here, can be exported"
        )
