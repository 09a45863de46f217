"""Loader of the queries and targets for reloads, which reads the files in a child process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poller.config.file_watcher import Fingerprint, contents, fingerprint
from poller.config.loader_process import LoaderError, LoaderProcess
from poller.config.settings import Settings
from poller.model.catalog import Configuration
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError


class CatalogProcess:
    """The query files `sources`, read by a new process at each load."""

    def __init__(self, settings: Settings, sources: Sequence[Path]) -> None:
        self._settings = settings
        self._sources = sources

    def fingerprint(self) -> bytes:
        """Return a digest of the files' contents."""
        return contents(self._sources)

    def status(self) -> Fingerprint:
        """Return the files' status, which differs after each write."""
        return fingerprint(self._sources)

    def load(self) -> Configuration:
        """Read the files; raises ConfigError with every problem, also if the process fails."""
        try:
            configuration: Configuration = LoaderProcess.run("load", self._settings)
        except LoaderError as error:
            message = f"cannot be read again: {error}; send SIGHUP to retry"
            raise ConfigError([invalid("POLLER_QUERIES", message)]) from None
        return configuration
