"""Validation across queries and targets: selectors without a target, and attributes with two values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from poller.config.queries.query_file import QueryFile
from poller.config.queries.schema.parameters import parameter_names
from poller.config.targets.load import LocatedTarget
from poller.model.catalog import Catalog
from poller.model.diagnostics import Diagnostic
from poller.model.path import PathKey
from poller.model.query import QueryDefinition
from poller.model.target import Target, can_match
from poller.model.text import did_you_mean, quote

_MOST_NAMES = 1000
"""Maximum number of names to compare with a wrong name."""
_MOST_TAGS = 20
"""Maximum number of tags in a message."""


def find_target_conflicts(
    files: Sequence[QueryFile], targets: Sequence[LocatedTarget]
) -> Iterator[Diagnostic]:
    """Return every conflict of the queries in `files` with the valid `targets`.

    Invalid queries are included as far as their keys are valid, so that no mistake hides a conflict.
    """
    selected: dict[tuple[tuple[str, ...], bool], list[LocatedTarget]] = {}
    for file in files:
        for at, data in file.queries():
            selectors = _texts(data.get("targets"))
            once = data.get("once_per_server") is True
            unmatched = False
            for index, selector in selectors:
                positive = selector.removeprefix("!")
                if not any(_matches(located.target, positive, once=once) for located in targets):
                    unmatched = True
                    hint = _server_hint(selector, targets, once=once) or _hint(selector, targets)
                    message = f"{quote(selector)} matches no target{hint}"
                    yield file.problem((*at, "targets", index), message)
            key = tuple(text for _, text in selectors), once
            if key not in selected:  # 10,000 targets, and many queries with equal selectors
                selected[key] = _selected(*key, targets)
            if not selected[key] and not unmatched:
                message = "selects no target, because its selectors exclude each other; remove one"
                yield file.problem((*at, "targets"), message)
            yield from _find_ambiguous(file, at, data, selected[key])


def unused_targets(catalog: Catalog, targets: Sequence[LocatedTarget]) -> Iterator[Diagnostic]:
    """Return a warning for each target that no query selects."""
    used = {
        located.target.name
        for selectors, once in {(query.targets, query.once_per_server) for query in catalog.queries}
        for located in _selected(selectors, once, targets)
    }
    for located in targets:
        name = located.target.name
        if name not in used:
            message = "no query selects it; add one of its tags to the queries, or remove the target"
            place = located.file.place(located.path)
            yield Diagnostic("warning", "unused-target", message, subject=name, place=place)


def _find_ambiguous(
    file: QueryFile, at: tuple[PathKey, ...], query: dict[str, Any], targets: Sequence[LocatedTarget]
) -> Iterator[Diagnostic]:
    """Return the attributes of metrics that are also attributes of a target, once for each metric."""
    owners = {_label(name): located for located in reversed(targets) for name in located.target.attributes}
    metrics = query.get("metrics")
    for number, metric in enumerate(metrics if owners and isinstance(metrics, list) else []):
        for key in ("attribute_columns", "attributes"):
            names = metric.get(key) if isinstance(metric, dict) else None
            for name in names if isinstance(names, list | dict) else ():
                if isinstance(name, str) and (owner := owners.get(_label(name))):
                    message = _also_an_attribute(name, owner)
                    yield file.problem((*at, "metrics", number, key), message)
    for name in parameter_names(query.get("parameters")):
        if owner := owners.get(_label(name)):
            yield file.problem((*at, "parameters"), _also_an_attribute(name, owner))


def _also_an_attribute(name: str, owner: LocatedTarget) -> str:
    return (
        f"{quote(name)} is also an attribute of the target {owner.target.name} at {owner.where}; rename one"
    )


def _label(name: str) -> str:
    return name.replace(".", "_")


def _texts(value: object) -> list[tuple[int, str]]:
    """Return the selectors with their positions; the schema accepts a number as the tag of its digits."""
    items = value if isinstance(value, list) else []
    texts = (
        item if isinstance(item, bool) or not isinstance(item, int | float) else str(item) for item in items
    )
    return [(index, text) for index, text in enumerate(texts) if isinstance(text, str)]


def _selected(
    selectors: tuple[str, ...], once: bool, targets: Sequence[LocatedTarget]
) -> list[LocatedTarget]:
    """Return the targets on which, or on whose databases, a query may run."""
    query = QueryDefinition(name="", sql="", metrics=(), targets=selectors, once_per_server=once)
    return [item for item in targets if item.target.runs(query) or _may_select(item.target, selectors, once)]


def _may_select(target: Target, selectors: Sequence[str], once: bool) -> bool:
    """Return whether the selectors may select a database of the target's server."""
    if target.databases is None or once:
        return False
    wanted = [selector for selector in selectors if not selector.startswith("!")]
    # The names of the databases are unknown: only a tag, or `/*`, excludes all of them.
    every = (*target.tags, f"name:{target.name}/*")
    excluded = any(selector[1:] in every for selector in selectors if selector.startswith("!"))
    return not excluded and (not wanted or any(_matches(target, selector, once=False) for selector in wanted))


def _matches(target: Target, selector: str, *, once: bool) -> bool:
    """Return whether a selector without `!` may match a target on which a query runs.

    Of a server with `databases`, that is the target itself for a query that runs `once` per server, and its
    databases for other queries.
    """
    if not selector.startswith("name:"):
        return selector in target.tags
    pattern = selector.removeprefix("name:")
    if target.databases is None or once:
        return fnmatchcase(target.name, pattern)
    return can_match(pattern, f"{target.name}/") and _excluded(target, pattern) is None


def _excluded(target: Target, pattern: str) -> str | None:
    """Return the database of the target's server that the pattern names, if the target excludes it."""
    server, _, name = pattern.partition("/")
    named = server == target.name and name and not set(name) & set("*?[")
    return name if named and target.databases is not None and not target.databases.matches(name) else None


def _server_hint(selector: str, targets: Sequence[LocatedTarget], *, once: bool) -> str | None:
    """Return the hint for a selector that matches only what a query does not run on; None for others."""
    sign = "!" if selector.startswith("!") else ""
    pattern = selector.removeprefix("!").removeprefix("name:")
    if pattern == selector.removeprefix("!"):
        return None
    for name, target in ((item.target.name, item.target) for item in targets):
        if target.databases is None:
            continue
        if once and can_match(pattern, f"{name}/"):
            return f" that runs queries with once_per_server; write {sign}name:{name}"
        if not once and fnmatchcase(name, pattern):
            return (
                f" that runs it, because {name} itself only runs queries with once_per_server; write "
                f"{sign}name:{name}/* for its databases"
            )
        if not once and (excluded := _excluded(target, pattern)):
            return f", because `databases` of {name} exclude {quote(excluded)}; remove the selector"
    return None


def _hint(selector: str, targets: Sequence[LocatedTarget]) -> str:
    text = selector.removeprefix("!")
    if selector != text:
        names = [*{tag for item in targets for tag in item.target.tags}]
        names += [f"name:{item.target.name}" for item in targets[:_MOST_NAMES]]
        similar = did_you_mean(selector, [f"!{name}" for name in sorted(names)])
        return similar or "; correct it, or remove it, because it excludes nothing"
    if text.startswith("name:"):
        if "/" in text:
            servers = [located.target.name for located in targets if located.target.databases is not None]
            return did_you_mean(text.partition("/")[0], [f"name:{name}" for name in servers]) or (
                "; write `name:`, the name of a target with `databases`, a slash and a pattern"
            )
        names = [f"name:{located.target.name}" for located in targets[:_MOST_NAMES]]
        return did_you_mean(text, names) or "; write `name:` and a pattern of a target's name"
    tags = sorted({tag for located in targets for tag in located.target.tags})
    if not tags:
        return "; no target has tags, so add `tags:` to the targets"
    more = f" and {len(tags) - _MOST_TAGS} more" if len(tags) > _MOST_TAGS else ""
    return f"{did_you_mean(text, tags) or ';'} tags are: {', '.join(tags[:_MOST_TAGS])}{more}"
