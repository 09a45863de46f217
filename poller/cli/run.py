"""Command `run`: the part in the child process that loads the daemon's configuration."""

from __future__ import annotations

from poller.cli.options import with_settings
from poller.config.settings import Settings


@with_settings()
def run(settings: Settings) -> None:
    """Poll the replica on schedule and push the gauges until SIGTERM or SIGINT.

    With POLLER_TARGETS it polls every target of a targets file, in place of POLLER_DATABASE_URL.

    The daemon starts and keeps running while the database or the collector is down. It reloads the query
    files and targets on SIGHUP and after each change (POLLER_WATCH=false: on SIGHUP only). On the first
    signal to stop, it starts no new poll, cancels the running query on the server and pushes the last values
    once more. On the second signal, it ends at once.
    """
    from poller.config.loader_process import answer

    answer(lambda: settings)
    # Imported here because shell completion waits for the imports of the module.
    from poller.config.file_watcher import fingerprint
    from poller.config.load import open_configuration
    from poller.config.queries.files import resolve

    def read_sources() -> tuple[object, object]:
        sources = [*resolve(settings.queries), *([settings.targets] if settings.targets else [])]
        return sources, fingerprint(sources)

    answer(read_sources)  # before the files are read, so that the watcher misses no change
    answer(lambda: open_configuration(settings))
