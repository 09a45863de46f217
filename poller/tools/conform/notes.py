"""Collection of distinct differences, each with examples and its number of occurrences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from poller.model.diagnostics import Diagnostic, Severity

_EXAMPLES = 5
_HERE = "$"
"""Placeholder for the examples in a message."""
_MOST, _LONGEST = 1000, 200
"""Maximum number of differences and length of a subject, because a client may choose both."""


@dataclass(slots=True)
class _Difference:
    advice: str | None
    severity: Severity
    count: int = 0
    examples: dict[str, None] = field(default_factory=dict)


class Differences:
    """Differences by check, subject and message."""

    def __init__(self) -> None:
        self._differences: dict[tuple[str, str, str], _Difference] = {}
        self._more = 0

    def add(
        self,
        check: str,
        subject: str,
        message: str,
        example: str = "",
        *,
        advice: str | None = None,
        severity: Severity = "error",
    ) -> None:
        """Add one difference; examples replace `$` in `message`. Above a limit it is only counted."""
        key = (check, _cut(subject), message)
        if key not in self._differences and len(self._differences) >= _MOST:
            self._more += 1
            return
        difference = self._differences.setdefault(key, _Difference(advice, severity))
        difference.count += 1
        if severity == "error":
            difference.severity = severity
        if example and len(difference.examples) <= _EXAMPLES:
            difference.examples[example] = None

    def has(self, check: str, subject: str, message: str) -> bool:
        """Whether this difference was added before; its first advice is kept."""
        return (check, _cut(subject), message) in self._differences

    def diagnostics(self) -> Iterator[Diagnostic]:
        """One diagnostic for each difference, in order of check, subject and message."""
        for (check, subject, message), difference in sorted(self._differences.items()):
            examples, count = list(difference.examples), difference.count
            listed = ", ".join(examples[:_EXAMPLES]) + (", ..." if len(examples) > _EXAMPLES else "")
            times = "" if count == 1 else f" ({count} times)"
            detail = message.replace(_HERE, listed) + times
            facts = {"count": count}
            yield Diagnostic(difference.severity, check, detail, difference.advice, subject, facts=facts)
        if self._more:
            detail = f"{self._more} more are not listed; fix the listed differences first"
            yield Diagnostic("error", "differences", detail, subject="others", facts={"count": self._more})


def _cut(subject: str) -> str:
    return subject if len(subject) <= _LONGEST else f"{subject[:_LONGEST]}..."


def summary(check: str, count: int, detail: str, wrong: int) -> Diagnostic:
    """Summary diagnostic for one signal, of which `count` items were examined."""
    facts = {"count": count, "differences": wrong}
    if wrong:
        detail = f"{detail}, {wrong} difference{'' if wrong == 1 else 's'}"
        return Diagnostic("error", check, detail, facts=facts)
    if not count:
        return Diagnostic("skip", check, "none were sent", facts=facts)
    return Diagnostic("ok", check, f"{detail}, no difference", facts=facts)
