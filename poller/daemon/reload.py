"""Reload of the query files and targets, all or nothing: invalid files change nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal, Protocol

from opentelemetry.metrics import Meter

from poller.config.file_watcher import Fingerprint
from poller.config.queries.diff import Difference, compare
from poller.daemon.target_pollers import TargetChanges
from poller.model.catalog import Configuration
from poller.model.diagnostics import Diagnostic
from poller.model.errors import ConfigError
from poller.model.text import counted
from poller.telemetry.process_metrics import register_reloads

logger = logging.getLogger(__name__)

MOST_PROBLEMS = 20
"""Number of problems that are logged; `poller check` reports all."""

ReloadOutcome = Literal["changed", "unchanged", "refused", "unsteady"]
"""Result of a reload.

unsteady  the files changed while they were read, so the result is ignored
"""


class ConfigurationLoader(Protocol):
    """Loader of the query files and targets: `config.catalog_process.CatalogProcess`, except in tests."""

    def fingerprint(self) -> bytes:
        """Return a digest of the files' contents."""

    def status(self) -> Fingerprint:
        """Return the files' status, which differs after each write, also of equal contents."""

    def load(self) -> Configuration:
        """Read the files; raises ConfigError with every problem."""


class Reload:
    """Reload of the query files and targets, all or nothing: an invalid file changes nothing.

    Settings are not read again, including those that are defaults of queries (`POLLER_INTERVAL`).
    """

    def __init__(
        self,
        configuration: Configuration,
        loader: ConfigurationLoader,
        *,
        apply: Callable[[Configuration, Difference], TargetChanges],
        meter: Meter,
    ) -> None:
        """Start with `configuration`, which runs already.

        `loader` reads the new configurations. `apply` is called with each and with the difference of its
        queries. `meter` gets the metrics about reloads.
        """
        self.configuration = configuration
        self.problems: tuple[Diagnostic, ...] = ()
        """Problems for which the last reload was refused; empty if it was not refused."""
        and_targets = " and targets" if any(target.name for target in configuration.targets) else ""
        self._files, self._things = f"query files{and_targets}", f"queries{and_targets}"
        self._loader = loader
        self._apply_configuration = apply
        self._read = b""
        self._last_success = time.time()
        self._reloads = register_reloads(
            meter, self._files, self._things, lambda: not self.problems, lambda: self._last_success
        )

    def run(self, requested: bool) -> ReloadOutcome:
        """Reload the files; unless `requested`, only if their contents changed since the last read."""
        # The contents alone do not show that a file was written twice meanwhile and is empty again.
        status, before = self._loader.status(), self._loader.fingerprint()
        if before == self._read and not requested:
            return "unchanged"
        problems: tuple[Diagnostic, ...] = ()
        configuration = self.configuration
        try:
            configuration = self._loader.load()
        except ConfigError as error:
            problems = tuple(error.problems)
        if (self._loader.fingerprint(), self._loader.status()) != (before, status):
            logger.debug("the %s change while they are read", self._files)
            return "unsteady"
        self._read = before
        if problems:
            self._refuse(problems)
            return "refused"
        difference = compare(self.configuration.catalog.queries, configuration.catalog.queries)
        targets = self._apply_configuration(configuration, difference)
        self.configuration, self.problems, self._last_success = configuration, (), time.time()
        self._reloads.add(1, {"poller.outcome": "ok"})
        lines = [*(difference.lines() if difference else ()), *targets.lines()]
        if not lines:
            logger.info("%s read again: nothing changed", self._files)
            return "unchanged"
        extra = {"queries": len(configuration.catalog.queries)}
        logger.info("%s read again: %s", self._files, lines[0], extra=extra)
        for line in lines[1:]:
            logger.info("%s", line)
        return "changed"

    def _refuse(self, problems: tuple[Diagnostic, ...]) -> None:
        self.problems = problems
        self._reloads.add(1, {"poller.outcome": "failed"})
        logger.error(
            "%s rejected; the running %s stay in use",
            self._files,
            self._things,
            extra={"problems": len(problems), "queries": len(self.configuration.catalog.queries)},
        )
        for problem in problems[:MOST_PROBLEMS]:
            logger.error("%s", problem)
        if (more := len(problems) - MOST_PROBLEMS) > 0:
            logger.error("and %s; `poller check` reports all", counted(more, "more problem"))
