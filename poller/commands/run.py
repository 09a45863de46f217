"""Read what the daemon works by, in a child of it: the command line, the settings, the query files."""

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
    from poller.reader import leave, tell

    tell(settings)
    # Not above: who completes a command line waits for what is loaded.
    from poller.commands.reading import answer
    from poller.errors import ConfigError
    from poller.logs import configure
    from poller.sources import resolve
    from poller.watcher import fingerprint

    configure(settings.log_format, settings.log_level)  # of a defect of ours
    try:
        # Before the files are read, so that no change is missed.
        sources = resolve(settings.queries)
        seen = fingerprint(sources)
    except ConfigError as error:
        tell(error.problems)
    else:
        tell((sources, seen))
        tell(answer(settings.queries, settings.defaults))
    leave()
