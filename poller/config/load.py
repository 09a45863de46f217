"""Loader of the query files and the targets, which reports the problems of both at once."""

from __future__ import annotations

from collections.abc import Sequence

from poller.config.queries.files import resolve
from poller.config.queries.load import build_catalog, open_files
from poller.config.queries.query_file import QueryFile
from poller.config.settings import Settings
from poller.config.targets.conflicts import find_target_conflicts
from poller.config.targets.load import LocatedTarget, load_located
from poller.config.yaml_file import in_order
from poller.model.catalog import Catalog, Configuration
from poller.model.diagnostics import Diagnostic
from poller.model.errors import ConfigError
from poller.model.target import Target


def open_configuration(settings: Settings) -> Configuration:
    """Load the query files and the targets that the settings name.

    Without POLLER_TARGETS there is one target, the database of the settings. Raises ConfigError with every
    problem: first those of the query files, then those of the targets.
    """
    problems: list[Diagnostic] = []
    files: list[QueryFile] = []
    catalog = Catalog((), ())
    targets: tuple[Target, ...] = ()
    try:
        files = open_files(resolve(settings.queries))
    except ConfigError as error:
        problems += error.problems
    try:
        catalog, located = load_together(files, settings)
        targets = tuple(item.target for item in located)
    except ConfigError as error:
        problems += error.problems
    if settings.targets is None:
        try:
            targets = (settings.only_target(),)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Configuration(catalog, targets)


def load_together(files: Sequence[QueryFile], settings: Settings) -> tuple[Catalog, list[LocatedTarget]]:
    """Return the catalogue of `files`, and the targets of POLLER_TARGETS, if it is set.

    Raises ConfigError with every problem: first those of `files`, then those of the targets.
    """
    catalog = Catalog((), ())
    targets: list[LocatedTarget] = []
    problems: list[Diagnostic] = []
    of_targets: list[Diagnostic] = []
    try:
        catalog = build_catalog(files, settings.defaults)
    except ConfigError as error:
        problems += error.problems
    if settings.targets is not None:
        try:
            targets = load_located(settings.targets, settings)
            problems += find_target_conflicts(files, targets)
        except ConfigError as error:
            of_targets += error.problems
    if problems or of_targets:
        raise ConfigError([*in_order(problems, files), *of_targets])
    return catalog, targets
