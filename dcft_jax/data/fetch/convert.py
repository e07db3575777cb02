"""Documents of published test sets -> rows of `dcft_jax.evaluation.items`.

One function for each set: `(document, member of the wheel) -> row`, None for a document
that the task leaves out. They raise KeyError for a missing field, ValueError for one
that is not as the set says.
"""

import ast
import re
import warnings
from pathlib import PurePosixPath

from dcft_jax.data.fetch.task import Document, Row

# A problem and its solution together; a drawing in Asymptote is no text to read.
MATH_SHORT_CHARS = 400
_DRAWING = "[asy]"

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def gsm8k(doc: Document, member: str) -> Row:
    """Cobbe et al. 2021, arXiv:2110.14168; without its calculator annotations."""
    del member
    steps, mark, answer = doc["answer"].rpartition("####")
    gold = answer.strip().replace(",", "")
    if not mark or not re.fullmatch(r"-?\d+", gold):
        raise ValueError(f"answer {answer!r} is no integer after ####")
    return {
        "id": f"gsm8k/{doc['id']}",
        "prompt": doc["question"].strip(),
        "kind": "answer",
        "reference": f"{_CALCULATOR.sub('', steps).strip()}\n#### {gold}",
        "gold": gold,
    }


def math_short(doc: Document, member: str) -> Row | None:
    """Hendrycks et al. 2021, arXiv:2103.03874; the problems short enough.

    The gold answer is read out of the solution: the field `answer` of the wheel has
    passed through replacements that damaged some, such as `\\iny` for `\\infty`.
    """
    text = doc["problem"] + doc["solution"]
    if len(text) > MATH_SHORT_CHARS or _DRAWING in text:
        return None
    subject = PurePosixPath(member).parent.parent.name.removeprefix("minerva_math_")
    return {
        "id": f"math/{subject}/{doc['index']}",
        "prompt": doc["problem"].strip(),
        "kind": "answer",
        "reference": doc["solution"].strip(),
        "gold": last_boxed(doc["solution"]),
        "metadata": {"level": doc["level"], "subject": doc["type"]},
    }


def last_boxed(solution: str) -> str:
    """What stands in the last `\\boxed{...}`; braces may be nested."""
    start = solution.rfind("\\boxed{")
    if start < 0:
        raise ValueError("solution has no \\boxed{...}")
    depth, begin = 0, start + len("\\boxed")
    for end in range(begin, len(solution)):
        depth += (solution[end] == "{") - (solution[end] == "}")
        if depth == 0:
            return solution[begin + 1 : end].strip()
    raise ValueError("solution does not close its last \\boxed{")


def mbpp(doc: Document, member: str) -> Row:
    """Austin et al. 2021, arXiv:2108.07732.

    As in the paper, the prompt shows the three tests: most texts name no function.
    """
    del member
    code = _unix(doc["code"]).strip()
    tests = [_unix(test).strip() for test in doc["test_list"]]
    text = doc["text"].strip()
    shown = "\n".join(tests)
    return {
        "id": f"mbpp/{doc['task_id']}",
        "prompt": f"{text}\nThe code has to pass these tests:\n\n{shown}",
        "kind": "program",
        "reference": code,
        "tests": tests,
        "entry_point": tested_function(code, tests),
        "setup": _unix(doc["test_setup_code"]).strip(),
        "metadata": {"text": text},
    }


def tested_function(code: str, tests: list[str]) -> str:
    """The function of `code` that the tests call; "" if they only make objects."""
    defined = [
        node.name
        for node in _parse(code).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    called = {
        node.func.id
        for node in ast.walk(_parse("\n".join(tests)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return next((name for name in reversed(defined) if name in called), "")


def _parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        # Some of the regular expressions are no raw strings.
        warnings.simplefilter("ignore")
        return ast.parse(code)


def humaneval(doc: Document, member: str) -> Row:
    """Chen et al. 2021, arXiv:2107.03374.

    `metadata.code_prefix` is the published prompt, for models that continue text.
    """
    del member
    prefix, name = doc["prompt"], doc["entry_point"]
    block = f"```python\n{prefix.rstrip()}\n```"
    return {
        "id": f"humaneval/{doc['task_id'].removeprefix('HumanEval/')}",
        "prompt": f"Complete this Python function:\n\n{block}",
        "kind": "program",
        "reference": prefix + doc["canonical_solution"],
        "tests": [f"{doc['test'].strip()}\n\ncheck({name})"],
        "entry_point": name,
        "metadata": {"code_prefix": prefix},
    }


def socialiqa(doc: Document, member: str) -> Row:
    """Sap et al. 2019, arXiv:1904.09728."""
    del member
    choices = [doc[f"answer{letter}"].strip() for letter in "ABC"]
    return {
        "id": f"socialiqa/{doc['index']}",
        "prompt": f"{doc['context'].strip()} {doc['question'].strip()}",
        **_choice(choices, int(doc["label"]) - 1),
    }


def piqa(doc: Document, member: str) -> Row:
    """Bisk et al. 2020, arXiv:1911.11641."""
    del member
    choices = [doc["sol1"].strip(), doc["sol2"].strip()]
    return {
        "id": f"piqa/{doc['index']}",
        "prompt": doc["goal"].strip(),
        **_choice(choices, int(doc["label"])),
    }


def _choice(choices: list[str], gold: int) -> Row:
    if not 0 <= gold < len(choices):
        raise ValueError(f"label of choice {gold}, but there are {len(choices)}")
    return {
        "kind": "choice",
        "choices": choices,
        "gold": gold,
        "reference": choices[gold],
    }


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")
