"""Command `run`: the part in the child process that loads the daemon's configuration."""

from __future__ import annotations

from poller.cli.options import with_settings
from poller.config.settings import Settings


@with_settings()
def run(settings: Settings) -> None:
    """Poll the replica on schedule and push the gauges until SIGTERM or SIGINT.

    Starts and keeps running while the database or the collector is down. SIGHUP, and any change of the query
    files, has them read again (POLLER_WATCH=false: SIGHUP only). On the first signal to stop no new poll
    starts, a running query is cancelled on the server and the last values are pushed once more; on the
    second the process ends at once.
    """
    from poller.config.loader_process import answer

    answer(lambda: settings)
    # Not above: shell completion waits for what is imported.
    from poller.cli.load_catalog import open_catalog
    from poller.config.queries.file_watcher import fingerprint
    from poller.config.queries.files import resolve

    def look() -> tuple[object, object]:
        sources = resolve(settings.queries)
        return sources, fingerprint(sources)

    answer(look)  # before the files are read, so that no change is missed
    answer(lambda: open_catalog(settings))
