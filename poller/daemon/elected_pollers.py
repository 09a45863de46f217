"""Pollers of a process that polls only while it leads; a follower has no targets."""

from __future__ import annotations

import logging
import threading
import time

from poller.config.queries.diff import Difference
from poller.daemon.scheduler import PollScheduler
from poller.daemon.target_factory import TargetFactory
from poller.daemon.target_pollers import TargetChanges, TargetPollers
from poller.model.catalog import Catalog, Configuration

logger = logging.getLogger(__name__)

_INTERRUPT_SECONDS = 5.0
"""Time that interrupted ticks have to end, and until a failed change is tried again."""
_NOTHING = Configuration(Catalog((), ()), ())


class ElectedPollers:
    """Opens the pollers of all targets when this process becomes the leader, and closes them afterwards."""

    def __init__(
        self,
        factory: TargetFactory,
        scheduler: PollScheduler,
        pollers: TargetPollers,
        configuration: Configuration,
    ) -> None:
        """Prepare; `start` begins to open and close the pollers that `factory` makes."""
        self._factory = factory
        self._scheduler = scheduler
        self._pollers = pollers
        self._configuration = configuration
        self._lock = threading.Lock()
        """Held while pollers are opened or closed."""
        self._leads = self._polls = self._interrupted = False
        self._changed = threading.Event()

    def start(self) -> None:
        """Follow the changes in a thread."""
        threading.Thread(target=self._run, name="elected", daemon=True).start()

    def change(self, leads: bool) -> None:
        """Begin to poll, or interrupt all ticks and cease to poll; returns at once."""
        self._leads = leads
        try:
            if not leads:
                self._interrupted = True
                self._factory.interrupt()
        finally:
            self._changed.set()

    def apply(self, configuration: Configuration, difference: Difference | None = None) -> TargetChanges:
        """Use a new configuration, now if this process polls, otherwise as soon as it leads."""
        with self._lock:
            before, self._configuration = self._configuration, configuration
            if not self._polls:
                return _changes(before, configuration)
            return self._pollers.apply(configuration, difference)

    def _run(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                with self._lock:
                    self._follow()
            except Exception:  # for example out of threads or descriptors
                logger.exception("the targets could not be changed because of a defect of the poller")
                self._polls = self._interrupted = True  # close what was opened, then try again
                self._factory.interrupt()
                time.sleep(_INTERRUPT_SECONDS)
                self._changed.set()

    def _follow(self) -> None:
        if self._polls and (self._interrupted or not self._leads):
            self._polls = False
            self._pollers.apply(_NOTHING)
        if self._leads and not self._polls:
            if self._interrupted:
                self._interrupted = False
                # A tick that was not interrupted in time, for example in a connect, keeps its token.
                self._factory.resume(idle=self._scheduler.wait_until_idle(_INTERRUPT_SECONDS))
            self._pollers.apply(self._configuration)
            self._polls = True


def _changes(before: Configuration, after: Configuration) -> TargetChanges:
    """Return the names of the targets that a follower will poll differently."""
    old, new = ({target.name: target for target in of.targets} for of in (before, after))
    changed = [name for name in new if name in old and old[name] != new[name]]
    return TargetChanges([*(new.keys() - old.keys())], [*(old.keys() - new.keys())], changed)
