"""lm-evaluation-harness with our models: its numbers against direct computation."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from dcft_jax.data.sentencepiece_export import to_huggingface
from dcft_jax.evaluation.task import Subject
from dcft_jax.lm_eval.__main__ import main, make_parser
from dcft_jax.models import generate, load_pretrained, save_pretrained
from dcft_jax.sharding import make_mesh
from dcft_jax.training.loop import train
from dcft_jax.training.run import open_run
from tests.conftest import make_tiny_config
from tests.evaluation.conftest import WORDS
from tests.evaluation.test_continuations import by_definition
from tests.processes import log_of, start, wait

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from dcft_jax.lm_eval.adapter import JaxLM
from dcft_jax.lm_eval.generation import read_generation

CHOICES = """
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROLLING = """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
REPLIES = """
task: replies
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{text}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
"""
TASKS = {"choices": CHOICES, "rolling": ROLLING, "replies": REPLIES}
ROWS = [
    {
        "question": " ".join(WORDS[i : i + 1 + 2 * (i % 3)]),
        "choices": WORDS[i : i + 2 + i % 3],
        "gold": i % 2,
        "text": " ".join(WORDS[: 2 + 4 * i]),
    }
    for i in range(6)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks on a file of this machine."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(task.replace("FILE", str(rows)))
    return folder


@pytest.fixture(scope="module")
def subject(model, params, tokenizer) -> Subject:
    mesh = make_mesh(dict(ability=1, data=2, model=1), jax.devices()[:2])
    return Subject(model, params, tokenizer, mesh)


def evaluate(lm, folder: Path, *tasks: str, **options):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    options = dict(bootstrap_iters=0) | options
    return simple_evaluate(lm, tasks=list(tasks), task_manager=manager, **options)


def request(*args):
    return SimpleNamespace(args=args)


def log_likelihood(subject, context, tokens) -> float:
    return -by_definition(subject.model, subject.params, context, tokens)[0]


def greedy(subject, context, number: int) -> list[int]:
    stop_ids = subject.tokenizer.chat.stop_ids
    (reply,) = generate(
        subject.model,
        subject.params,
        [context],
        max_new_tokens=number,
        stop_ids=stop_ids,
    )
    return [token for token in reply if token not in stop_ids]


def test_the_scores_are_those_of_direct_computation(subject, folder):
    lm = JaxLM(subject, batch_size=4, max_length=24)
    found = evaluate(lm, folder, *TASKS)
    encode, bos = subject.tokenizer.encode, subject.tokenizer.bos_id

    right, right_norm = [], []
    for row in ROWS:
        context = encode(row["question"])
        # No piece of the vocabulary holds the end of a word and what follows.
        scores = [
            log_likelihood(subject, context, encode(f" {one}"))
            for one in row["choices"]
        ]
        by_length = np.array(scores) / [len(one) for one in row["choices"]]
        right.append(np.argmax(scores) == row["gold"])
        right_norm.append(np.argmax(by_length) == row["gold"])
    assert found["results"]["choices"]["acc,none"] == pytest.approx(np.mean(right))
    norm = found["results"]["choices"]["acc_norm,none"]
    assert norm == pytest.approx(np.mean(right_norm))

    nats = words = num_bytes = 0
    windows = 0
    for row in ROWS:
        tokens = encode(row["text"])
        words += len(row["text"].split())
        num_bytes += len(row["text"].encode())
        for end in range(0, len(tokens), 24):
            window = tokens[end : end + 24]
            # As much context as fits in front of the last tokens.
            first = max(0, end + len(window) - 24)
            context = [bos] if end == 0 else tokens[first - 1 : end]
            nats -= log_likelihood(subject, context, window)
            windows += 1
    assert windows > len(ROWS), "no text had several windows"
    rolling = found["results"]["rolling"]
    perplexity = np.exp(nats / words)
    assert rolling["word_perplexity,none"] == pytest.approx(perplexity, rel=1e-4)
    bits = nats / num_bytes / np.log(2)
    assert rolling["bits_per_byte,none"] == pytest.approx(bits, rel=1e-4)

    replies = {
        s["doc"]["question"]: s["resps"][0][0] for s in found["samples"]["replies"]
    }
    with jax.set_mesh(subject.mesh):
        for row in ROWS:
            reply = greedy(subject, encode(row["question"])[-12:], 12)
            expected = subject.tokenizer.decode(reply).split("\n\n")[0]
            assert replies[row["question"]] == expected
    assert found["config"]["max_length"] == 24


def test_log_likelihoods_come_in_the_order_of_the_requests(subject):
    lm = JaxLM(subject, batch_size=2)
    texts = [("", " sun"), ("add three", " and seven"), ("what is the", " word")]
    texts += [("what is ", "it"), (" ", "sun"), ("add three", " and seven")]
    found = lm.loglikelihood([request(*pair) for pair in texts], disable_tqdm=True)
    encode, bos = subject.tokenizer.encode, subject.tokenizer.bos_id
    expected = [
        ([bos], encode(" sun")),
        (encode("add three"), encode(" and seven")),
        (encode("what is the"), encode(" word")),
        (encode("what is"), encode(" it")),  # the space goes with what follows
        ([bos], encode(" sun")),
        (encode("add three"), encode(" and seven")),
    ]
    for (value, likeliest), pair in zip(found, expected, strict=True):
        nats, is_greedy = by_definition(subject.model, subject.params, *pair)
        assert value == pytest.approx(-nats, rel=1e-4)
        assert likeliest == is_greedy


def test_what_the_model_would_write_is_greedy(subject):
    lm = JaxLM(subject, batch_size=2)
    (text,) = lm.generate_until(
        [request("what is the", {"until": [], "max_gen_toks": 3})], disable_tqdm=True
    )
    ids = subject.tokenizer.encode("what is the" + text)
    context = subject.tokenizer.encode("what is the")
    with jax.set_mesh(subject.mesh):
        if ids != [*context, *greedy(subject, context, 3)]:
            pytest.fail("choose a context whose reply has the tokens that wrote it")
    ((_, is_greedy),) = lm.loglikelihood([request("what is the", text)], True)
    assert is_greedy


def test_begin_of_sequence_is_added_once(subject):
    bos = subject.tokenizer.bos_id
    text = subject.tokenizer.piece(bos)
    assert JaxLM(subject).tok_encode("sun")[0] != bos
    lm = JaxLM(subject, add_bos=True)
    ids = [bos, *subject.tokenizer.encode("sun")]
    assert lm.tok_encode("sun") == lm.tok_encode(f"{text}sun") == ids
    assert lm.tok_encode("sun", add_special_tokens=False) == ids[1:]


def test_replies_end_at_the_first_stop_string(subject):
    lm = JaxLM(subject, batch_size=4)

    def reply(until, number=40):
        options = {"until": until, "max_gen_toks": number}
        (text,) = lm.generate_until([request("add three", options)], disable_tqdm=True)
        return text

    whole = reply([])
    assert len(whole) > 10
    first, second = whole[3:5], whole[7:9]
    assert whole.index(first) < whole.index(second)
    assert reply([second, first]) == whole[: whole.index(first)]
    assert reply(second) == whole[: whole.index(second)]
    context = subject.tokenizer.encode("add three")
    with jax.set_mesh(subject.mesh):
        ids = greedy(subject, context, 40)
    assert whole == subject.tokenizer.decode(ids)


def test_generation_stops_early(subject, monkeypatch):
    """A stop string ends the batch, not only the text."""
    from dcft_jax.lm_eval import generation

    monkeypatch.setattr(generation, "CHUNK", 8)
    yielded = []

    def counted(*args, **kwargs):
        for replies in stream(*args, **kwargs):
            yielded.append(len(replies[0]))
            yield replies

    stream = generation.stream
    monkeypatch.setattr(generation, "stream", counted)
    lm = JaxLM(subject, batch_size=2)
    options = {"until": [], "max_gen_toks": 64}
    (whole,) = lm.generate_until([request("add three", options)], disable_tqdm=True)
    full = yielded.copy()
    yielded.clear()
    options = {"until": [whole[:2]], "max_gen_toks": 64}
    (text,) = lm.generate_until([request("add three", options)], disable_tqdm=True)
    assert text == ""
    assert len(yielded) == 1 < len(full)


def test_a_control_token_may_be_a_stop_string(subject):
    lm = JaxLM(subject)
    bos = subject.tokenizer.bos_id
    options = read_generation({"until": [subject.tokenizer.piece(bos), "sun"]}, 9)
    assert lm._stops(options) == (*subject.tokenizer.chat.stop_ids, bos)


def test_groups_of_options_keep_their_order(subject):
    lm = JaxLM(subject, batch_size=2)
    short = {"until": [], "max_gen_toks": 2}
    long = {"until": [], "max_gen_toks": 9}
    requests = [request(word, o) for word in WORDS[:3] for o in (short, long)]
    found = lm.generate_until(requests, disable_tqdm=True)
    with jax.set_mesh(subject.mesh):
        for one, text in zip(requests, found, strict=True):
            context = subject.tokenizer.encode(one.args[0])
            ids = greedy(subject, context, one.args[1]["max_gen_toks"])
            assert text == subject.tokenizer.decode(ids)


def test_samples_depend_on_request_and_seed(subject):
    options = {"until": [], "max_gen_toks": 9, "do_sample": True, "temperature": 1.0}
    requests = [request("sun", options)] * 3

    def draw(seed: int, batch_size: int) -> list[str]:
        lm = JaxLM(subject, seed=seed, batch_size=batch_size)
        return lm.generate_until(requests, disable_tqdm=True)

    assert len(set(draw(0, 4))) > 1
    assert draw(0, 4) == draw(0, 2)
    assert draw(0, 4) != draw(1, 4)


def test_what_is_too_long_loses_its_begin_and_is_told(subject, caplog):
    lm = JaxLM(subject, max_length=16, batch_size=2)
    context = " ".join(WORDS)
    ids = subject.tokenizer.encode(context)
    tokens = subject.tokenizer.encode(" sun")
    assert len(ids) > 16
    with caplog.at_level(logging.WARNING):
        ((value, _),) = lm.loglikelihood([request(context, " sun")], disable_tqdm=True)
    assert "1 of 1 contexts lost their begin" in caplog.text
    kept = [*ids, *tokens][-17 : -len(tokens)]
    assert value == pytest.approx(log_likelihood(subject, kept, tokens), rel=1e-4)
    caplog.clear()
    options = {"until": [], "max_gen_toks": 6}
    with caplog.at_level(logging.WARNING):
        (text,) = lm.generate_until([request(context, options)], disable_tqdm=True)
    assert "1 of 1 contexts lost their begin" in caplog.text
    with jax.set_mesh(subject.mesh):
        assert text == subject.tokenizer.decode(greedy(subject, ids[-10:], 6))


def test_a_chat_is_asked_in_the_format_of_the_model(subject, folder):
    lm = JaxLM(subject, batch_size=4)
    found = evaluate(
        lm, folder, "replies", apply_chat_template=True, system_instruction="please"
    )
    chat = subject.tokenizer.chat
    with jax.set_mesh(subject.mesh):
        for sample in found["samples"]["replies"]:
            question = sample["doc"]["question"]
            messages = [("system", "please"), ("user", question)]
            context = chat.encode_prompt(messages).tolist()
            assert lm.tok_encode(sample["arguments"][0][0]) == context
            ids = greedy(subject, context, 12)
            text = subject.tokenizer.decode(ids).removeprefix(" ").split("\n\n")[0]
            assert sample["resps"][0][0] == text
    assert lm.chat_template(True) == chat.content_hash
    assert lm.chat_template(False) is None
    with pytest.raises(ValueError, match="apply_chat_template='rag'"):
        lm.chat_template("rag")


def test_answers_are_kept(subject, folder, tmp_path):
    cache = str(tmp_path / "answers")
    first = evaluate(JaxLM(subject), folder, *TASKS, use_cache=cache)

    class Forgetful(JaxLM):
        def _loglikelihood_tokens(self, requests, disable_tqdm=False, **kwargs):
            raise AssertionError("was computed before")

        def generate_until(self, requests, disable_tqdm=False):
            raise AssertionError("was computed before")

    again = evaluate(Forgetful(subject), folder, *TASKS, use_cache=cache)
    assert again["results"] == first["results"]


def test_partial_answers_are_kept(subject):
    kept = []
    lm = JaxLM(subject)
    lm.cache_hook = SimpleNamespace(add_partial=lambda *one: kept.append(one))
    options = {"until": [], "max_gen_toks": 2}
    pairs = lm.loglikelihood([request("add", " sun")], disable_tqdm=True)
    totals = lm.loglikelihood_rolling([request("add"), request("")], disable_tqdm=True)
    texts = lm.generate_until([request("add", options)], disable_tqdm=True)
    assert totals[1] == 0.0
    assert kept == [
        ("loglikelihood", ("add", " sun"), pairs[0]),
        ("loglikelihood_rolling", ("add",), totals[0]),
        ("loglikelihood_rolling", ("",), totals[1]),
        ("generate_until", ("add", options), texts[0]),
    ]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_beams": 4}, "num_beams=4 is not supported"),
        ({"max_gen_toks": 0}, "max_gen_toks=0 must be at least 1"),
        ({"do_sample": True, "top_p": 2.0}, "top_p=2.0 must be in"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        read_generation(kwargs, 9)


def test_options_of_generation():
    found = read_generation({"until": "a", "max_new_tokens": 3, "num_beams": 1}, 9)
    assert found.until == ("a",)
    assert (found.max_new_tokens, found.sampling.temperature) == (3, 0)
    cold = read_generation({"do_sample": False, "temperature": 0.5, "top_p": 0.3}, 9)
    assert (cold.max_new_tokens, cold.sampling.temperature) == (9, 0)
    assert read_generation({"do_sample": True}, 9).sampling.temperature == 1
    warm = read_generation({"temperature": 0.5, "top_p": 0.3, "top_k": 7}, 9).sampling
    assert (warm.temperature, warm.top_p, warm.top_k) == (0.5, 0.3, 7)


def test_impossible_requests_are_refused(subject):
    lm = JaxLM(subject, max_length=8)
    with pytest.raises(ValueError, match="max_gen_toks=8 leaves no room"):
        lm.generate_until([request("a", {"max_gen_toks": 8})], disable_tqdm=True)
    with pytest.raises(ValueError, match="at least one of its own"):
        lm.loglikelihood([request("a", "")], disable_tqdm=True)
    with pytest.raises(ValueError, match="at most max_length=8"):
        lm.loglikelihood([request("a", " ".join(WORDS))], disable_tqdm=True)
    with pytest.raises(ValueError, match="batch_size=0"):
        JaxLM(subject, batch_size=0)


@pytest.fixture(scope="module")
def exported(subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as transformers reads it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    to_huggingface(subject.tokenizer, "tests").save(folder)
    extra = {
        "bos_token_id": subject.tokenizer.bos_id,
        "eos_token_id": list(subject.tokenizer.chat.stop_ids),
        "pad_token_id": subject.tokenizer.pad_id,
    }
    save_pretrained(subject.model, subject.params, folder, max_length=64, extra=extra)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_the_numbers_are_those_of_transformers(subject, folder, exported, chat):
    """The harness's own class on the exported model gives the same numbers."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(
        str(exported), dtype="float32", device="cpu", max_length=24, batch_size=2
    )
    loaded = load_pretrained(exported, subject.mesh, compute_dtype="float32")
    read = Subject(loaded.config, loaded.params, loaded.tokenizer, subject.mesh)
    ours = JaxLM(read, max_length=24, batch_size=4)
    options = dict(apply_chat_template=chat)
    tasks = ("choices", "replies") if chat else tuple(TASKS)
    expected = evaluate(theirs, folder, *tasks, **options)
    found = evaluate(ours, folder, *tasks, **options)
    for task in tasks:
        pairs = zip(found["samples"][task], expected["samples"][task], strict=True)
        for a, b in pairs:
            assert a["arguments"] == b["arguments"]
            for (x,), (y,) in zip(a["resps"], b["resps"], strict=True):
                if isinstance(y, str):
                    assert x == (y.removeprefix(" ") if chat else y)
                elif isinstance(y, tuple):
                    assert x[0] == pytest.approx(y[0], abs=1e-3)
                    assert x[1] == y[1]
                else:
                    assert x == pytest.approx(y, abs=1e-3)


@pytest.mark.slow
def test_the_command_prints_and_writes_the_scores(
    subject, exported, folder, tmp_path, capsys
):
    arguments = ["--model", str(exported), "--compute_dtype", "float32"]
    arguments += ["--tasks", "choices", "replies", "--include_path", str(folder)]
    arguments += ["--limit", "4", "--batch_size", "2", "--max_length", "24"]
    main([*arguments, "--output_path", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "|choices|" in printed.replace(" ", "")
    (path,) = (tmp_path / "out").rglob("results_*.json")
    written = json.loads(path.read_text())
    assert written["config"]["model"] == str(exported)
    assert written["n-samples"]["choices"]["effective"] == 4
    expected = evaluate(
        JaxLM(subject, max_length=24), folder, "choices", "replies", limit=4
    )
    for task in ("choices", "replies"):
        for name, value in expected["results"][task].items():
            if isinstance(value, float):
                assert written["results"][task][name] == pytest.approx(value)
    assert len(list((tmp_path / "out").rglob("samples_*.jsonl"))) == 2


@pytest.mark.slow
def test_two_processes_have_the_scores_of_one(exported, folder, tmp_path):
    options = f"--model {exported} --compute_dtype float32 --include_path {folder}"
    options += f" --tasks {' '.join(TASKS)} --batch_size 2 --max_length 24"
    main([*options.split(), "--output_path", str(tmp_path / "one")])
    command = ("-m", "dcft_jax.lm_eval", *options.split())
    two = start(tmp_path / "two", 2, (*command, f"--output_path={tmp_path / 'two'}"))
    cached = start(tmp_path / "cached", 2, (*command, f"--use_cache={tmp_path / 'c'}"))
    codes = wait([*two, *cached], 300)
    logs = [log_of(tmp_path / name, i) for name in ("two", "cached") for i in (0, 1)]
    texts = [log.read_text() for log in logs]
    assert codes == [0, 0, 1, 1], texts
    assert "|choices|" in texts[0].replace(" ", "")
    assert "|choices|" not in texts[1].replace(" ", "")
    assert "is for one process" in texts[2] and "is for one process" in texts[3]
    for task in TASKS:
        mine, theirs = (samples(tmp_path / name, task) for name in ("two", "one"))
        assert [one["arguments"] for one in mine] == [
            one["arguments"] for one in theirs
        ]
        for a, b in zip(mine, theirs, strict=True):
            if task == "replies":
                assert a["resps"] == b["resps"]
            else:
                nats = [np.float64(np.array(one["resps"])[..., 0]) for one in (a, b)]
                np.testing.assert_allclose(*nats, rtol=1e-4)


def samples(folder: Path, task: str) -> list[dict]:
    (file,) = folder.rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_the_command_scores_a_run(task_files, folder, tmp_path, capsys):
    config = make_tiny_config(task_files, tmp_path / "cache")
    console = Console(quiet=True)
    train(open_run(config, tmp_path / "run", console, jax.devices()[:1]))
    arguments = ["--workdir", str(tmp_path / "run"), "--tasks", "choices"]
    arguments += ["--include_path", str(folder), "--apply_chat_template"]
    main([*arguments, "--output_path", str(tmp_path / "out")])
    assert "acc_norm" in capsys.readouterr().out
    (path,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(path.read_text())["config"]["step"] == config.run.num_steps
    (path,) = (tmp_path / "out").rglob("samples_*.jsonl")
    sample = json.loads(path.read_text().splitlines()[0])
    question = sample["doc"]["question"]
    asked = sample["arguments"]["gen_args_0"]["arg_0"]
    assert asked == f"<bos><user> {question}<end><assistant>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "nonsense"], "--tasks nonsense: lm-eval has no such task"),
        (["--tasks", "gsm8k", "--limit", "0"], "--limit 0: must be at least 1"),
        (["--tasks", "a", "--include_path", "no/such"], "no such folder"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(["--model", "no/such/model", *arguments])
    assert make_parser().parse_args(["--model", "a", "--tasks", "b"]).limit is None
