"""What became of the examples of an ability."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dcft_jax.data.example import Example

SPLITS = ("train", "mix_val", "test")


@dataclass(frozen=True)
class SplitReport:
    """Counts of examples, from sources to splits.

    Attributes:
        ability: name.
        counts: source -> {"train", "mix_val", "test"} -> kept.
        removed: "duplicates" (of a prompt, inside a split) and overlaps: "train/test",
            "train/mix_val", "mix_val/test" (left the first, kept in the second).
        unused: held-out examples that the sources bring beyond what was asked for. They
            are not trained on.
        skipped: source -> malformed rows left out.
        ngram: n of the decontamination; 0 if it was off.
        ngram_shared: training examples sharing an n-gram with a held-out text.
        ngram_removed: training examples holding a whole held-out text, or held by one.
    """

    ability: str
    counts: Mapping[str, Mapping[str, int]]
    removed: Mapping[str, int]
    unused: int
    skipped: Mapping[str, int]
    ngram: int
    ngram_shared: int
    ngram_removed: int

    def total(self, split: str) -> int:
        return sum(counts[split] for counts in self.counts.values())

    def lines(self) -> list[str]:
        """The report for people; what did not happen has no line."""
        lines = [f"{self.ability}: {_sizes({s: self.total(s) for s in SPLITS})}"]
        lines += [f"  {name}: {_sizes(counts)}" for name, counts in self.counts.items()]
        if self.removed:
            removed = [f"{number:,} {what}" for what, number in self.removed.items()]
            lines.append(f"  removed: {', '.join(removed)}")
        if self.unused:
            lines.append(f"  held out by the sources but not needed: {self.unused:,}")
        for name, number in self.skipped.items():
            if number:
                lines.append(f"  {name}: {number:,} malformed rows skipped")
        if self.ngram_shared:
            lines.append(
                f"  {self.ngram_shared:,} training examples share {self.ngram} words "
                f"in a row with a held-out text; {self.ngram_removed:,} of them "
                "overlapped a whole text and were removed"
            )
        return lines


def count_by_source(
    splits: Mapping[str, Sequence[Example]], sources: Sequence[str]
) -> dict[str, dict[str, int]]:
    """source -> split -> number of examples."""
    counters = {
        split: Counter(example.source for example in examples)
        for split, examples in splits.items()
    }
    return {
        source: {split: counters[split][source] for split in SPLITS}
        for source in sources
    }


def _sizes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[split]:,} {split}" for split in SPLITS)
