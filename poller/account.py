"""Keep account of what becomes of each row: a sample, or refused for a reason."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from poller.overflow import Column, Row
from poller.result import Refusal, Sample
from poller.series import Key, key_of

MOST_REFUSALS_SHOWN = 20
"""Of one result; what is beyond is counted only."""

_MOST_BYTES_SHOWN = 400


@dataclass(slots=True)
class Account:
    """What becomes of the candidates while they are gone through."""

    columns: tuple[Column, ...]
    taken: dict[tuple[str, Key], tuple[Sample, Row | None] | None] = field(default_factory=dict)
    """Of all metrics of the query, as two of them may have one name; None where twins were withdrawn."""
    quarantined: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    refused: list[Refusal] = field(default_factory=list)
    made: int = 0
    folded: int = 0

    def take(self, sample: Sample, row: Row | None = None) -> None:
        """Keep one sample, made from a row or from none, unless its series is taken already."""
        series = sample.metric, key_of(sample.attributes)
        if series not in self.taken:
            self.taken[series] = sample, row
            return
        # The first of the twins is withdrawn too: one of them is wrong and nobody knows which.
        first = self.taken[series]
        if first is not None:
            self.refuse(sample.metric, "duplicate", first[1])
        self.refuse(sample.metric, "duplicate", row)
        self.taken[series] = None

    def refuse(self, metric: str, reason: str, row: Row | None) -> None:
        self.quarantined[reason] += 1
        if row is not None and len(self.refused) < MOST_REFUSALS_SHOWN:
            texts = (None if raw is None else raw[:_MOST_BYTES_SHOWN].decode(errors="replace") for raw in row)
            names = (column.name for column in self.columns)
            self.refused.append(Refusal(metric, reason, dict(zip(names, texts, strict=True))))

    def samples(self) -> tuple[Sample, ...]:
        return tuple([entry[0] for entry in self.taken.values() if entry is not None])
