"""Lets the model of a run answer prompts.

python -m dcft_jax.generate --workdir runs/quickstart "Calculate 57 + 33."
python -m dcft_jax.generate --workdir runs/quickstart --file prompts.txt
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from absl import logging

from dcft_jax import distributed
from dcft_jax.data import Tokenizer, reply_text
from dcft_jax.models import Sampling, generate, stream
from dcft_jax.training.trained import Trained, load_trained


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it touches
    with distributed.all_or_none():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    try:
        distributed.start_from(args)
        prompts = _read_prompts(args)
        sampling = Sampling(
            temperature=args.temperature, top_k=args.top_k, top_p=args.top_p
        )
        _check_samples(args.num_samples, sampling)
        trained = load_trained(args.workdir, args.checkpoint)
        with jax.set_mesh(trained.mesh), _first_speaks():
            if len(prompts) == args.num_samples == 1:
                _answer_one(trained, prompts[0], sampling, args)
            else:
                _answer_all(trained, prompts, sampling, args)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


@contextlib.contextmanager
def _first_speaks() -> Iterator[None]:
    """All processes have the replies; one prints them."""
    if distributed.is_first():
        yield
        return
    nobody = io.StringIO()
    with contextlib.redirect_stdout(nobody), contextlib.redirect_stderr(nobody):
        yield


def _answer_one(
    trained: Trained, prompt: str, sampling: Sampling, args: argparse.Namespace
) -> None:
    """Prints the reply as it comes."""
    tokenizer, shown, reply = trained.tokenizer, "", []
    for (reply,) in stream(
        trained.model,
        trained.params,
        [tokenizer.chat.encode_prompt([("user", prompt)]).tolist()],
        max_new_tokens=args.max_new_tokens,
        stop_ids=tokenizer.chat.stop_ids,
        sampling=sampling,
        seed=args.seed,
    ):
        # The bytes of a character that is not all there yet decode to U+FFFD.
        text = reply_text(reply, tokenizer).rstrip("\ufffd")
        print(text[len(shown) :], end="", flush=True)
        shown = text
    print(reply_text(reply, tokenizer)[len(shown) :])
    _warn_if_cut(tokenizer, [reply], args.max_new_tokens)


def _answer_all(
    trained: Trained,
    prompts: Sequence[str],
    sampling: Sampling,
    args: argparse.Namespace,
) -> None:
    """Prints every prompt, and its replies below it."""
    tokenizer, samples = trained.tokenizer, args.num_samples
    encoded = [
        tokenizer.chat.encode_prompt([("user", prompt)]).tolist() for prompt in prompts
    ]
    replies = generate(
        trained.model,
        trained.params,
        [tokens for tokens in encoded for _ in range(samples)],
        max_new_tokens=args.max_new_tokens,
        stop_ids=tokenizer.chat.stop_ids,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=args.seed,
    )
    for i, prompt in enumerate(prompts):
        print(f"> {prompt}")
        for reply in replies[i * samples : (i + 1) * samples]:
            print(f"{reply_text(reply, tokenizer)}\n")
    _warn_if_cut(tokenizer, replies, args.max_new_tokens)


def _warn_if_cut(
    tokenizer: Tokenizer, replies: Sequence[Sequence[int]], limit: int
) -> None:
    stop_ids = tokenizer.chat.stop_ids
    cut = sum(reply[-1] not in stop_ids for reply in replies)
    if cut:
        print(
            f"{cut} of {len(replies)} replies cut at --max_new_tokens {limit}",
            file=sys.stderr,
        )


def _read_prompts(args: argparse.Namespace) -> list[str]:
    if args.prompts and args.file:
        raise ValueError(f"--file {args.file!r}: give prompts or a file, not both")
    if args.prompts:
        prompts = list(args.prompts)
    else:
        if not args.file and jax.process_count() > 1:
            raise ValueError("stdin is not that of all processes; give --file")
        text = Path(args.file).read_text() if args.file else sys.stdin.read()
        prompts = text.splitlines()
    prompts = [prompt for prompt in prompts if prompt.strip()]
    if not prompts:
        raise ValueError("there is no prompt; give one, --file, or lines on stdin")
    return prompts


def _check_samples(num_samples: int, sampling: Sampling) -> None:
    if num_samples < 1:
        raise ValueError(f"--num_samples {num_samples}: must be at least 1")
    if num_samples > 1 and sampling.temperature == 0:
        raise ValueError(
            f"--num_samples {num_samples}: with --temperature 0 all would be the same; "
            "set it above 0"
        )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.generate",
        description="Lets the model of a run answer prompts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("prompts", nargs="*", metavar="PROMPT", help="none: the lines of stdin")
    add("--workdir", required=True, help="folder that training was started with")
    add("--file", help="a text file, one prompt per line")
    add(
        "--checkpoint",
        default="latest",
        help="latest, best:<ability> (its lowest mix-val loss) or a step",
    )
    add("--max_new_tokens", type=int, default=256, help="of every reply")
    add("--temperature", type=float, default=0.0, help="0: the most likely token")
    add("--top_k", type=int, default=0, help="only the k most likely tokens; 0: all")
    add("--top_p", type=float, default=1.0, help="only tokens up to this probability")
    add("--seed", type=int, default=0, help="of the sampling")
    add("--num_samples", type=int, default=1, help="replies to every prompt")
    distributed.add_options(parser)
    return parser


if __name__ == "__main__":
    main()
