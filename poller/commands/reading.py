"""Read the query files that the settings name; as a module, for a daemon that asks by `poller.reader`."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import sys

from poller.catalog import Catalog, Defaults
from poller.errors import ConfigError, Problem
from poller.queryfiles import load
from poller.reader import end_with
from poller.settings import Settings
from poller.sources import resolve


def open_catalog(settings: Settings) -> Catalog:
    """Read the query files; raises ConfigError with every problem of every file."""
    return load(resolve(settings.queries), settings.defaults)


def answer(queries: str, defaults: Defaults) -> Catalog | list[Problem]:
    """The same as one sends it to another process."""
    try:
        return load(resolve(queries), defaults)
    except ConfigError as error:
        return error.problems


def main() -> None:
    """Answer the questions on stdin, on stdout: which version asks, and what `answer` is given."""
    end_with(int(sys.argv[1]))
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library may print is no part of the answer
    # First, as another version's classes may have other fields, and then values end up in the wrong ones.
    asking = pickle.load(sys.stdin.buffer)  # noqa: S301 - who has started us, and nobody else, writes it
    here = importlib.metadata.version("obscura-poller")
    if asking == here:
        found = answer(*pickle.load(sys.stdin.buffer))  # noqa: S301 - the same
    else:
        what = (
            f"cannot be read again: version {here} is installed by now, and {asking} runs; restart the poller"
        )
        found = [Problem("POLLER_QUERIES", what)]
    with told:
        pickle.dump(found, told)


if __name__ == "__main__":
    main()
