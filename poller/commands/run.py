"""Read the configuration of the daemon, in the child process that it starts (`poller.loader`)."""

from __future__ import annotations

from poller.commands.options import with_settings
from poller.settings import Settings


@with_settings()
def run(settings: Settings) -> None:
    """Poll the replica on schedule and push the gauges until SIGTERM or SIGINT.

    Starts and keeps running while the database or the collector is down. SIGHUP, and any change of the query
    files, has them read again (POLLER_WATCH=false: SIGHUP only). On the first signal to stop no new poll
    starts, a running query is cancelled on the server and the last values are pushed once more; on the
    second the process ends at once.
    """
    from poller.loader import answer

    answer(lambda: settings)
    # Not above: shell completion waits for what is imported.
    from poller.commands.reading import open_catalog
    from poller.sources import resolve
    from poller.watcher import fingerprint

    def look() -> tuple[object, object]:
        sources = resolve(settings.queries)
        return sources, fingerprint(sources)

    answer(look)  # before the files are read, so that no change is missed
    answer(lambda: open_catalog(settings))
