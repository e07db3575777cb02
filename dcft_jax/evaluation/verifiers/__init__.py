"""Judges of what a model wrote: pure, bounded in time, and they run none of it."""

from dcft_jax.evaluation.verifiers.answers import same_answer, verify_answer
from dcft_jax.evaluation.verifiers.final_answer import extract_answer
from dcft_jax.evaluation.verifiers.instruction_checks import CHECKS
from dcft_jax.evaluation.verifiers.instructions import (
    InstructionVerdict,
    check_instruction,
    verify_instructions,
)
from dcft_jax.evaluation.verifiers.pass_at_k import pass_at_k
from dcft_jax.evaluation.verifiers.text_answer import normalise_text, verify_text
from dcft_jax.evaluation.verifiers.verdict import Verdict

__all__ = [
    "CHECKS",
    "InstructionVerdict",
    "Verdict",
    "check_instruction",
    "extract_answer",
    "normalise_text",
    "pass_at_k",
    "same_answer",
    "verify_answer",
    "verify_instructions",
    "verify_text",
]
