"""Reload of the query files, all or nothing: invalid files leave the running queries in use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from poller.config.queries.diff import Difference, compare
from poller.daemon.scheduler import PollScheduler
from poller.model.catalog import Catalog
from poller.model.diagnostics import Diagnostic
from poller.model.errors import ConfigError
from poller.model.query import QueryDefinition
from poller.model.text import counted
from poller.model.tick import Tick

logger = logging.getLogger(__name__)

MOST_PROBLEMS = 20
"""Number of problems that are logged; `poller check` reports all."""

Outcome = Literal["changed", "unchanged", "refused", "unsteady", "too late"]
"""Result of a reload.

unsteady  the files changed while they were read, so the result is ignored
too late  the daemon was stopped before the swap
"""


class Reload:
    """Reload of the query files, all or nothing: an invalid file changes nothing.

    Settings are not read again, including those that are defaults of queries (`POLLER_INTERVAL`).
    """

    def __init__(
        self,
        catalog: Catalog,
        daemon: PollScheduler,
        *,
        load: Callable[[], Catalog],
        look: Callable[[], bytes],
        plan: Callable[[Sequence[QueryDefinition]], Sequence[Tick]],
        swap: Callable[[Sequence[QueryDefinition], Collection[str]], None],
        meter: Meter,
    ) -> None:
        """Start with `catalog`, whose ticks `daemon` runs; `load` reads a new catalog or raises ConfigError.

        `look` returns a digest of the files' contents, and `plan` makes ticks. `swap` is called between two
        ticks with the new queries and the names of queries whose data must be discarded. `meter` gets the
        metrics about reloads.
        """
        self.catalog = catalog
        self.problems: tuple[Diagnostic, ...] = ()
        """Problems for which the last reload was refused; empty if it was not refused."""
        self._load = load
        self._look = look
        self._daemon = daemon
        self._plan = plan
        self._swap = swap
        self._read = b""
        self._last_success = time.time()
        self._reloads = _meters(meter, lambda: not self.problems, lambda: self._last_success)

    def __call__(self, requested: bool) -> Outcome:
        """Reload the files; unless `asked`, only if their contents changed since the last read."""
        before = self._look()
        if before == self._read and not requested:
            return "unchanged"
        problems: tuple[Diagnostic, ...] = ()
        catalog = self.catalog
        try:
            catalog = self._load()
        except ConfigError as error:
            problems = tuple(error.problems)
        if self._look() != before:
            logger.debug("the query files change while they are read")
            return "unsteady"
        self._read = before
        if problems:
            self._refuse(problems)
            return "refused"
        difference = compare(self.catalog.queries, catalog.queries)
        ticks = self._plan(catalog.queries)
        if not self._daemon.swap(ticks, difference.fresh, lambda: self._take_over(catalog, difference)):
            return "too late"
        return "changed" if difference else "unchanged"

    def _take_over(self, catalog: Catalog, difference: Difference) -> None:
        self._swap(catalog.queries, difference.dropped)
        self.catalog, self.problems, self._last_success = catalog, (), time.time()
        self._reloads("ok")
        if not difference:
            logger.info("query files read again: nothing changed")
            return
        summary, *more = difference.lines()
        logger.info("query files read again: %s", summary, extra={"queries": len(catalog.queries)})
        for line in more:
            logger.info("%s", line)

    def _refuse(self, problems: tuple[Diagnostic, ...]) -> None:
        self.problems = problems
        self._reloads("failed")
        logger.error(
            "query files not taken over, the queries stay as they are",
            extra={"problems": len(problems), "queries": len(self.catalog.queries)},
        )
        for problem in problems[:MOST_PROBLEMS]:
            logger.error("%s", problem)
        if (more := len(problems) - MOST_PROBLEMS) > 0:
            logger.error("and %s; `poller check` reports all", counted(more, "more problem"))


def _meters(
    meter: Meter, is_good: Callable[[], bool], last_success: Callable[[], float]
) -> Callable[[str], None]:
    """Create the metrics about reloads; return a function that counts a reload as `ok` or `failed`."""
    reloads = meter.create_counter(
        "poller.config.reloads", unit="{reload}", description="Reloads of the query files by outcome."
    )

    def successful(_: CallbackOptions) -> list[Observation]:
        return [Observation(int(is_good()))]

    def at(_: CallbackOptions) -> list[Observation]:
        return [Observation(last_success())]

    meter.create_observable_gauge(
        "poller.config.reload.success",
        [successful],
        unit="{reload}",
        description="1 while the query files on disk are those that run, 0 after a reload that was refused.",
    )
    meter.create_observable_gauge(
        "poller.config.reload.last_success",
        [at],
        unit="s",
        description="Time at which the running queries were read, in seconds since 1970.",
    )
    return lambda outcome: reloads.add(1, {"poller.outcome": outcome})
