"""Target: one database that is polled, or one server whose databases are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from poller.model.diagnostics import Diagnostic
from poller.model.query import AttributeValue, QueryDefinition
from poller.model.secrets import Secret, read_secret

RequireStandby = Literal["warn", "true", "false"]

SYSTEM_DATABASES = frozenset(
    {
        "_dodb",  # DigitalOcean
        "alloydbadmin",  # Google AlloyDB
        "alloydbmetadata",
        "azure_maintenance",  # Azure Database for PostgreSQL
        "azure_sys",
        "cloudsqladmin",  # Google Cloud SQL
        "rdsadmin",  # Amazon RDS and Aurora
    }
)
"""Databases of cloud providers, which refuse connections and log each try.

Grafana Alloy (`exclude_databases`) and Datadog's agent (`ignore_databases`) exclude them by default, and
DigitalOcean's manual lists the first.
"""

_VARIABLE = re.compile(r"POLLER_([A-Z_]*[A-Z])(?:=(\w+))?")


_ELEMENT = re.compile(r"\[!?\]?[^\]]*\]|.", re.DOTALL)
"""Part of a pattern that matches one character, or `*`."""


def can_match(pattern: str, prefix: str) -> bool:
    """Return whether `pattern` (`*`, `?` and `[...]`) matches any longer text that begins with `prefix`."""
    elements = _ELEMENT.findall(pattern)
    for element, character in zip(elements, prefix, strict=False):
        if element == "*":
            return True
        if not fnmatchcase(character, element):
            return False
    return len(elements) > len(prefix)


class Selected(NamedTuple):
    """The databases of a server that are polled, and the others; each sorted by name."""

    names: tuple[str, ...]
    excluded: tuple[str, ...]
    over_limit: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Databases:
    """Databases of a server that become targets; durations in seconds."""

    include: tuple[str, ...] = ("*",)
    """Patterns of names (`*`, `?` and `[...]`)."""
    exclude: tuple[str, ...] = ()
    """Patterns of names; they override `include`."""
    limit: int = 500
    """Maximum number of databases: the first by name."""
    refresh: float = 600.0
    """Time between two looks at the server's list of databases."""
    forget: float = 3600.0
    """Time after which the data of a database that is missing from the list is deleted."""

    def select(self, names: Iterable[str]) -> Selected:
        """Select the databases to poll among all `names` of a server."""
        matching: list[str] = []
        excluded: list[str] = []
        for name in sorted(names):
            (matching if self.matches(name) else excluded).append(name)
        return Selected(tuple(matching[: self.limit]), tuple(excluded), tuple(matching[self.limit :]))

    def matches(self, name: str) -> bool:
        """Return whether the patterns select the database `name`."""

        def in_(patterns: Iterable[str]) -> bool:
            return any(fnmatchcase(name, pattern) for pattern in patterns)

        if in_(self.exclude) or (name in SYSTEM_DATABASES and name not in self.include):
            return False
        return in_(self.include)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One database with its identity, its connection and its limits; durations in seconds."""

    name: str
    """Its `service.instance.id`; empty for the only database without POLLER_TARGETS."""
    url: Secret | None = None
    """Connection string (URI or keywords); empty: libpq's own environment describes the database."""
    url_file: Path | None = None
    """File that contains the connection string, read at each connect; overrides `url`."""
    password_file: Path | None = None
    password_command: Secret | None = None
    tags: tuple[str, ...] = ()
    resource: Mapping[str, AttributeValue] = field(default_factory=dict)
    """Resource attributes of its series, in addition to those of every target."""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    """Attributes of every data point."""
    connections: int = 1
    """Maximum number of connections of this process to its server at the same time."""
    connect_timeout: float
    lock_timeout: float
    require_standby: RequireStandby
    max_replay_lag: float | None
    max_active_backends: int | None
    strict: bool
    database: str | None = None
    """Database to use instead of that of the connection string."""
    oid: int | None = None
    """OID of `database`: if it is dropped and created again, it has another one."""
    databases: Databases | None = None
    """If set, each database of the server is a target; this target only runs `once_per_server` queries."""

    def conninfo(self) -> str:
        """Return the connection string; empty if libpq's environment describes the database.

        Raises OSError if its file cannot be read or is empty, UnicodeError if it is not text.
        """
        if self.url_file is not None:
            return read_secret(self.url_file)
        return self.url.reveal() if self.url is not None else ""

    def with_keys(self, text: str) -> str:
        """Return a message with the keys of the targets file instead of the variables of the same settings.

        `POLLER_STRICT` becomes "`strict` of target eu-1"; the last key is followed by the target. The text
        does not change for other settings, and for the only database without POLLER_TARGETS.
        """
        if not self.name:
            return text
        url = "url" if self.url_file is None else "url_file"
        urls = {"database_url": url, "database_url_file": "url_file"}
        suffix = f" of target {self.name.partition('/')[0]}"
        for variable in reversed(list(_VARIABLE.finditer(text))):
            key = urls.get(name := variable[1].lower(), name)
            if key in self.__dataclass_fields__:
                written = f"`{key}: {variable[2]}`" if variable[2] else f"`{key}`"
                text = f"{text[: variable.start()]}{written}{suffix}{text[variable.end() :]}"
                suffix = ""
        return text

    def of_diagnostic(self, diagnostic: Diagnostic) -> Diagnostic:
        """Return a diagnostic of this target's database, with the target and its keys."""
        advice = diagnostic.advice and self.with_keys(diagnostic.advice)
        message = self.with_keys(diagnostic.message)
        return replace(diagnostic, message=message, advice=advice, target=self.name)

    def of_database(self, database: str, oid: int | None = None) -> Target:
        """Return the target of one database of this server, with the OID that the list has for it."""
        return replace(self, name=f"{self.name}/{database}", database=database, oid=oid, databases=None)

    def runs(self, query: QueryDefinition) -> bool:
        """Return whether `query` runs on this target.

        All queries run on the only database of a poller without POLLER_TARGETS. Of the databases of a server,
        only the one that lists the others runs a query that is declared `once_per_server`.
        """
        if not self.name:
            return True
        if self.databases is not None and not query.once_per_server:
            return False
        return self.selects(query) and not (query.once_per_server and self.database is not None)

    def selects(self, query: QueryDefinition) -> bool:
        """Return whether the selectors of a query's key `targets` match this target.

        A selector is a tag, or `name:` and a pattern; `!` before it excludes. A target must match a selector
        without `!`, if there is one, and no selector with `!`.
        """
        wanted = [selector for selector in query.targets if not selector.startswith("!")]
        unwanted = [selector[1:] for selector in query.targets if selector.startswith("!")]
        return (not wanted or any(map(self._matches, wanted))) and not any(map(self._matches, unwanted))

    def _matches(self, selector: str) -> bool:
        if selector.startswith("name:"):
            return fnmatchcase(self.name, selector.removeprefix("name:"))
        return selector in self.tags
