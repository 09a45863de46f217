"""Validation across queries and targets: selectors without a target, and attributes with two values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from poller.config.queries.query_file import QueryFile
from poller.config.targets.load import LocatedTarget
from poller.model.catalog import Catalog
from poller.model.diagnostics import Diagnostic
from poller.model.path import Key
from poller.model.query import QueryDefinition
from poller.model.target import Target
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
    selected: dict[tuple[str, ...], list[LocatedTarget]] = {}
    for file in files:
        for at, data in file.queries():
            selectors = _texts(data.get("targets"))
            unmatched = False
            for index, selector in selectors:
                if not any(_matches(located.target, selector.removeprefix("!")) for located in targets):
                    unmatched = True
                    message = f"{quote(selector)} matches no target{_hint(selector, targets)}"
                    yield file.problem((*at, "targets", index), message)
            key = tuple(text for _, text in selectors)
            if key not in selected:  # 10,000 targets, and many queries with equal selectors
                selected[key] = _selected(key, targets)
            if not selected[key] and not unmatched:
                message = "selects no target, because its selectors exclude each other; remove one"
                yield file.problem((*at, "targets"), message)
            yield from _find_ambiguous(file, at, data, selected[key])


def unused_targets(catalog: Catalog, targets: Sequence[LocatedTarget]) -> Iterator[Diagnostic]:
    """Return a warning for each target that no query selects."""
    used = {
        located.target.name
        for selectors in {query.targets for query in catalog.queries}
        for located in _selected(selectors, targets)
    }
    for located in targets:
        name = located.target.name
        if name not in used:
            message = "no query selects it; add one of its tags to the queries, or remove the target"
            place = located.file.place(located.path)
            yield Diagnostic("warning", "unused-target", message, subject=name, place=place)


def _find_ambiguous(
    file: QueryFile, at: tuple[Key, ...], query: dict[str, Any], targets: Sequence[LocatedTarget]
) -> Iterator[Diagnostic]:
    """Return the attributes of metrics that are also attributes of a target, once for each metric."""
    owners = {_label(name): located for located in reversed(targets) for name in located.target.attributes}
    metrics = query.get("metrics")
    for number, metric in enumerate(metrics if owners and isinstance(metrics, list) else []):
        for key in ("attribute_columns", "attributes"):
            names = metric.get(key) if isinstance(metric, dict) else None
            for name in names if isinstance(names, list | dict) else ():
                if isinstance(name, str) and (owner := owners.get(_label(name))):
                    message = (
                        f"{quote(name)} is also an attribute of the target {owner.target.name} at "
                        f"{owner.where}; rename one"
                    )
                    yield file.problem((*at, "metrics", number, key), message)


def _label(name: str) -> str:
    return name.replace(".", "_")


def _texts(value: object) -> list[tuple[int, str]]:
    items = value if isinstance(value, list) else []
    return [(index, item) for index, item in enumerate(items) if isinstance(item, str)]


def _selected(selectors: tuple[str, ...], targets: Sequence[LocatedTarget]) -> list[LocatedTarget]:
    query = QueryDefinition(name="", sql="", metrics=(), targets=selectors)
    return [item for item in targets if item.target.selects(query) or _may_select(item.target, selectors)]


def _may_select(target: Target, selectors: Sequence[str]) -> bool:
    """Return whether the selectors may select a database of the target's server."""
    if target.databases is None:
        return False
    wanted = [selector for selector in selectors if not selector.startswith("!")]
    # The names of the databases are unknown: only a tag excludes all of them.
    excluded = any(selector[1:] in target.tags for selector in selectors if selector.startswith("!"))
    return not excluded and (not wanted or any(_matches(target, selector) for selector in wanted))


def _matches(target: Target, selector: str) -> bool:
    """Return whether a selector without `!` matches the target, or may match a database of its server."""
    if not selector.startswith("name:"):
        return selector in target.tags
    pattern = selector.removeprefix("name:")
    if target.databases is None or fnmatchcase(target.name, pattern):
        return fnmatchcase(target.name, pattern)
    beginning, prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0], f"{target.name}/"
    return beginning.startswith(prefix) or (beginning != pattern and prefix.startswith(beginning))


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
