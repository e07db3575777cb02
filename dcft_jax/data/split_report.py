"""What became of the examples of an ability."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dcft_jax.data.example import Example

SPLITS = ("train", "mix_val", "test")


@dataclass(frozen=True)
class TierSize:
    """One difficulty tier of an ability's train examples, and its mix-val examples."""

    lowest: float
    highest: float
    examples: int
    mix_val: int
    rows: int
    response_tokens: int
    mean_length: float  # tokens of an example

    def line(self) -> str:
        span = f"{self.lowest:.4g}"
        if self.highest > self.lowest:
            span += f" to {self.highest:.4g}"
        return (
            f"{span}: {self.examples:,} examples in {self.rows:,} rows, "
            f"{self.response_tokens:,} response tokens, mean length "
            f"{self.mean_length:.1f}, {self.mix_val:,} mix_val"
        )


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
        tiers_by: what the ability is split into tiers by.
        tiers_asked: how many tiers its config asks for.
        tiers: size of each, easiest first; empty for an ability with one tier.
    """

    ability: str
    counts: Mapping[str, Mapping[str, int]]
    removed: Mapping[str, int]
    unused: int
    skipped: Mapping[str, int]
    ngram: int
    ngram_shared: int
    ngram_removed: int
    tiers_by: str = "none"
    tiers_asked: int = 1
    tiers: Sequence[TierSize] = ()

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
        return lines + self._tier_lines()

    def _tier_lines(self) -> list[str]:
        if self.tiers_by == "none":
            return []
        count = max(len(self.tiers), 1)
        merged = ""
        if count < self.tiers_asked:
            merged = f" instead of {self.tiers_asked}: all their values are these"
        plural = "s" if count > 1 else ""
        lines = [f"  {count} tier{plural} by {self.tiers_by}{merged}"]
        return lines + [f"    {t}: {tier.line()}" for t, tier in enumerate(self.tiers)]


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
