"""Collection of distinct differences, each with examples and its number of occurrences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from poller.tools.doctor.finding import Finding, State

_EXAMPLES = 5
_HERE = "$"
"""Stands in a text where its examples go."""
_MOST, _LONGEST = 1000, 200
"""Differences that are kept, and characters of what one concerns: a client may choose both."""


@dataclass(slots=True)
class _Note:
    what: str
    advice: str | None
    state: State
    count: int = 0
    examples: dict[str, None] = field(default_factory=dict)


class Notes:
    """Differences by what they are and what they concern."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], _Note] = {}
        self._more = 0

    def add(
        self,
        check: str,
        subject: str,
        what: str,
        example: str = "",
        *,
        advice: str | None = None,
        state: State = "fail",
    ) -> None:
        """Note one difference; `$` in `what` becomes the examples. Of too many, the rest is only counted."""
        key = (check, _cut(subject))
        if key not in self._notes and len(self._notes) >= _MOST:
            self._more += 1
            return
        note = self._notes.setdefault(key, _Note(what, advice, state))
        note.count += 1
        if state == "fail":
            note.state = state
        if example and len(note.examples) <= _EXAMPLES:
            note.examples[example] = None

    def has(self, check: str, subject: str) -> bool:
        """Whether this difference was noted before; its text is the first one's."""
        return (check, _cut(subject)) in self._notes

    def findings(self) -> Iterator[Finding]:
        """One finding for each difference, in order of what they are and what they concern."""
        for (check, subject), note in sorted(self._notes.items()):
            told = list(note.examples)
            shown = ", ".join(told[:_EXAMPLES]) + (", ..." if len(told) > _EXAMPLES else "")
            often = "" if note.count == 1 else f" ({note.count} times)"
            detail = note.what.replace(_HERE, shown) + often
            yield Finding(check, note.state, detail, note.advice, subject, {"count": note.count})
        if self._more:
            detail = f"{self._more} further ones are not listed; fix these first"
            yield Finding("differences", "fail", detail, subject="others", facts={"count": self._more})


def _cut(subject: str) -> str:
    return subject if len(subject) <= _LONGEST else f"{subject[:_LONGEST]}..."


def summary(check: str, count: int, detail: str, wrong: int) -> Finding:
    """The line that stands for everything of one signal, of which `count` were looked at."""
    facts = {"count": count, "differences": wrong}
    if wrong:
        detail = f"{detail}, {wrong} difference{'' if wrong == 1 else 's'}"
        return Finding(check, "fail", detail, facts=facts)
    if not count:
        return Finding(check, "skip", "none were sent: nothing is known of them", facts=facts)
    return Finding(check, "ok", f"{detail}, no difference", facts=facts)
