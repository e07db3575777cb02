"""Sources, splits, tokens and packed rows of every ability, and batches of them."""

from dcft_jax.data.batches import eval_batches, next_batch
from dcft_jax.data.chat import encode_example, encode_examples, reply_text
from dcft_jax.data.chat_format import ChatFormat
from dcft_jax.data.example import Example, prompt_key
from dcft_jax.data.example_losses import LossScorer, example_losses
from dcft_jax.data.packing import pack_encoded, pack_examples
from dcft_jax.data.preflight import check_ability, preview
from dcft_jax.data.prepare import Prepared, majority_baseline, prepare
from dcft_jax.data.pretrained_tokenizer import (
    load_chat_tokenizer,
    load_gguf_tokenizer,
)
from dcft_jax.data.rows import ROW_FIELDS, Rows, load_rows, save_rows
from dcft_jax.data.sentencepiece_tokenizer import load_tokenizer, train_tokenizer
from dcft_jax.data.splits import AbilityData, SplitReport, load_ability
from dcft_jax.data.streams import ability_seed, make_stream, tier_streams
from dcft_jax.data.tiers import TierPlan, Tiers
from dcft_jax.data.tokenizer import Tokenizer, check_vocabulary

__all__ = [
    "ROW_FIELDS",
    "AbilityData",
    "ChatFormat",
    "Example",
    "LossScorer",
    "Prepared",
    "Rows",
    "SplitReport",
    "TierPlan",
    "Tiers",
    "Tokenizer",
    "ability_seed",
    "check_ability",
    "check_vocabulary",
    "encode_example",
    "encode_examples",
    "eval_batches",
    "example_losses",
    "load_ability",
    "load_chat_tokenizer",
    "load_gguf_tokenizer",
    "load_rows",
    "load_tokenizer",
    "majority_baseline",
    "make_stream",
    "next_batch",
    "pack_encoded",
    "pack_examples",
    "prepare",
    "preview",
    "prompt_key",
    "reply_text",
    "save_rows",
    "tier_streams",
    "train_tokenizer",
]
