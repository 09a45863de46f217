"""Targets of one command: the target of `--target NAME`, and work on many servers at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from poller.config.settings import Settings
from poller.config.targets.load import load_targets
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollError
from poller.model.secrets import mask_conninfo
from poller.model.target import Target
from poller.model.text import did_you_mean, list_names, quote
from poller.postgres.conninfo import server_of_target

Result = TypeVar("Result")


def require_targets(settings: Settings, target: Sequence[str] | str | None) -> None:
    """Raise ConfigError if the option `--target` is used without POLLER_TARGETS."""
    if target and settings.targets is None:
        message = (
            "selects among the targets of POLLER_TARGETS, which is not set; set it to a targets file, "
            "or remove --target"
        )
        raise ConfigError([invalid("--target", message)])


def the_target(settings: Settings, name: str | None) -> Target:
    """Return the target named `name`, or the only one; raises ConfigError if it is unclear or invalid.

    `server/database` is a database that `databases` of a target includes, whether or not it exists.
    """
    require_targets(settings, name)
    if settings.targets is None:
        return settings.only_target()
    by_name = {target.name: target for target in load_targets(settings.targets, settings)}
    if name is None:
        if len(by_name) == 1:
            return next(iter(by_name.values()))
        message = f"is missing, and POLLER_TARGETS has {len(by_name):,} targets; write one of their names: "
        raise ConfigError([invalid("--target", f"{message}{list_names(by_name)}")])
    if target := by_name.get(name):
        return target
    server, _, database = name.partition("/")
    target = by_name.get(server)
    if not database or target is None:
        hint = did_you_mean(name, by_name) or f"; there are: {list_names(by_name)}"
    elif target.databases is None:
        hint = f", because {server} has no key `databases`; write --target {server}"
    elif "*" in database:
        hint = f" but a pattern; write one database, such as {server}/postgres"
    elif not target.databases.matches(database):
        hint = f": it {exclusion(target)}"
    else:
        return target.of_database(database)
    raise ConfigError([invalid("--target", f"{quote(name)} is not a target{hint}")])


def exclusion(target: Target) -> str:
    """Return the predicate of a database that the target of its server excludes."""
    return f"is excluded; change include or exclude of `databases` of the target {target.name}"


def place_of(settings: Settings, target: Target) -> str:
    """Return the address of a target's database without secrets."""
    if not target.name:
        return settings.text_of("database_url") or "libpq environment"
    try:
        place = mask_conninfo(target.conninfo())
    except (OSError, ValueError):
        place = str(target.url_file)
    return f"{place}, database {target.database}" if target.database else place


def by_server(targets: Sequence[Target]) -> dict[str, list[Target]]:
    """Return the targets by server, both in the order of the targets."""
    servers: dict[str, list[Target]] = {}
    for target in targets:
        servers.setdefault(server_of_target(target) or f"target {target.name}", []).append(target)
    return servers


def for_each(
    targets: Sequence[Target],
    workers: int,
    act: Callable[[Target], Result],
    skip: Callable[[Target, PollError], Result],
    unavailable: Callable[[Result], PollError | None],
) -> list[Result]:
    """Call `act` for each target and return the results in the order of the targets.

    At most `workers` servers are used at the same time, each by one target at a time; a single worker is the
    calling thread. After a result that is
    `unavailable`, the other targets of its server are not tried: `skip` gives their results.
    """

    def run(members: list[Target]) -> list[Result]:
        results: list[Result] = []
        error: PollError | None = None
        for target in members:
            results.append(act(target) if error is None else skip(target, error))
            error = error or unavailable(results[-1])
        return results

    servers = list(by_server(targets).values())
    if min(workers, len(servers)) == 1:
        results = list(map(run, servers))
    else:
        with ThreadPoolExecutor(workers, "target") as pool:
            results = list(pool.map(run, servers))
    by_name = {
        target.name: result
        for members, of_server in zip(servers, results, strict=True)
        for target, result in zip(members, of_server, strict=True)
    }
    return [by_name[target.name] for target in targets]
