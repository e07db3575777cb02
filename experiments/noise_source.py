"""An ability that cannot be learnt: prompts whose replies are random digits."""

import hashlib
import json
import random
from pathlib import Path

DIGITS = 12


def write_noise(folder: Path, examples: int, seed: int = 0) -> Path:
    """A JSONL file of distinct prompts, each with `DIGITS` digits drawn at random.

    What there is to learn is the format; after that the loss stays at the entropy of
    the digits, `DIGITS * log(10)` nats a reply, however long one trains, and held-out
    rows get worse once the model starts to remember. The name of the file holds a hash
    of its content, so the config that names it stands for these examples.
    """
    rng = random.Random(f"noise/{seed}")
    names = rng.sample(range(10**6), examples)
    rows = [
        {
            "prompt": f"What is the code of item {name:06d}?",
            "response": "".join(rng.choices("0123456789", k=DIGITS)),
        }
        for name in names
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    path = folder / f"noise-{digest}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(text)
        scratch.replace(path)
    return path
