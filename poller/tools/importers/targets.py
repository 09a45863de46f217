"""Targets that an importer has read from another tool's files, without the secrets of their connections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote as percent_encode
from urllib.parse import urlsplit

from pydantic import ValidationError

from poller.config.error_messages import sentences
from poller.config.targets.load import MAX_TARGETS
from poller.config.targets.schema import DeclaredDefaults, DeclaredIdentity
from poller.config.yaml_reader import Tagged
from poller.model.diagnostics import Place
from poller.model.secrets import MASK, foreign_parameters, mask_conninfo, userinfo
from poller.tools.draft.yaml_writer import Pairs, to_yaml
from poller.tools.importers.draft import DraftQuery
from poller.tools.importers.losses import Losses
from poller.tools.importers.naming import libpq_scheme, other_databases, target_name
from poller.tools.importers.node import SourceNode

_MOST_CONNECTIONS = 64
_PASSWORD = re.compile(rf"(?<=[^/:@]):{re.escape(MASK)}(?=@)|(^|\s+)password\s*=\s*{re.escape(MASK)}(?=\s|$)")
"""A masked password in a URI, or in a keyword string with the blanks before it."""
_LITERAL = re.compile(r"[^\\.\[\]{}()*+?^$|]|\\[^A-Za-z0-9]", re.DOTALL)
_CLASS = re.compile(r"\[(\^?)((?:[A-Za-z0-9_.]-[A-Za-z0-9_.]|[A-Za-z0-9_.])+)\]")
_LONGEST_PATTERN = 255


@dataclass(slots=True)
class DraftTarget:
    """One database of the other tool, or one server whose databases it discovers."""

    place: Place
    name: str
    url: str | None
    """The connection string; None if it is written to a file."""
    has_password: bool
    """Whether `url` lacks a password, which is written to a file."""
    attributes: dict[str, str]
    labels_at: Place
    connections: int | None = None
    tags: list[str] = field(default_factory=list)
    databases: dict[str, list[str]] | None = None

    def selected(self, selectors: Iterable[str]) -> bool:
        """Return whether any of the selectors, without patterns and exclusions, matches."""
        return any(selector in self.tags or selector == f"name:{self.name}" for selector in selectors)

    def data(self) -> dict[str, Any]:
        """Return the target as data of a targets file."""
        return {
            "name": self.name,
            **({"url_file": f"{self.name}.url"} if self.url is None else {"url": self.url}),
            **({"password_file": f"{self.name}.password"} if self.has_password else {}),
            **({"tags": self.tags} if self.tags else {}),
            **({"attributes": Pairs(self.attributes)} if self.attributes else {}),
            **({"connections": self.connections} if self.connections is not None else {}),
            **({"databases": Pairs(self.databases)} if self.databases is not None else {}),
        }


@dataclass(slots=True)
class DraftTargets:
    """Targets with unique names, and unique tags for the lists of queries that the other tool assigns."""

    targets: list[DraftTarget] = field(default_factory=list)
    _by_source: dict[object, DraftTarget] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _tags: dict[object, str] = field(default_factory=dict)

    def add(
        self,
        parent: SourceNode,
        key: str | int,
        name: str,
        labels: Mapping[str, str],
        labels_at: Place,
        connections: float | None = None,
    ) -> DraftTarget | None:
        """Return the target of the connection string or the connection parameters at `parent.key`.

        Without a `name` its name is host and database. Equal targets are added once. None if it is not
        PostgreSQL's, which is reported.
        """
        losses = parent.source.losses
        # A secret may be in the place of a name.
        place = parent.place if _is_secret(str(key)) else parent.at(key)
        value = _value_at(parent, key)
        source = (name, str(value), *labels.items())
        if value and source in self._by_source:
            return self._by_source[source]
        if schemes := other_databases([value]):
            losses.add_loss(place, f"{schemes[0]} is not PostgreSQL", "the poller supports PostgreSQL only")
            return None
        if len(self.targets) == MAX_TARGETS:
            losses.add_loss(place, f"it is beyond target {MAX_TARGETS:,}", "write another targets file")
            return None
        url, has_password = _without_secrets(value)
        wanted = "" if _is_secret(name) else name
        valid = target_name(wanted or _host_and_database(url), self._names)
        self._names.add(valid)
        target = DraftTarget(
            place, valid, url, has_password, _valid_attributes(labels, labels_at, losses), labels_at
        )
        target.connections = _bounded(connections, place, losses)
        if has_password:
            losses.add_change(
                place, f"the password is not copied; write it to {valid}.password, next to the targets file"
            )
        if url is None:
            losses.add_change(place, _moved(value, f"{valid}.url"))
        if name and not _is_secret(name) and valid != name:
            losses.add_change(place, f"the target {name} is now {valid}")
        self.targets.append(target)
        self._by_source[source] = target
        return target

    def tag(self, key: object, name: str) -> str:
        """Return the tag for `key`, with a valid name like `name`."""
        if key not in self._tags:
            self._tags[key] = target_name(name, set(self._tags.values()))
        return self._tags[key]

    def finish(self, drafts: Sequence[DraftQuery], losses: Losses) -> None:
        """Remove selectors of all targets, tags without a query, and attributes that a query has as well."""
        labels: dict[tuple[str, ...], dict[str, str]] = {}
        for draft in drafts:
            if all(target.selected(draft.targets) for target in self.targets):
                draft.targets = ()
            named = labels.setdefault(draft.targets, {})
            for metric in draft.metrics:
                for name in (*metric.attribute_columns, *metric.attributes, *draft.parameters[0]):
                    named.setdefault(_label(name), draft.name)
        selectors = {selector for draft in drafts for selector in draft.targets}
        for target in self.targets:
            taken = [named for select, named in labels.items() if not select or target.selected(select)]
            for name in list(target.attributes):
                query = next((named[_label(name)] for named in taken if _label(name) in named), None)
                if query is not None:
                    del target.attributes[name]
                    message = f"the label {name} is also an attribute of the query {query}"
                    losses.add_loss(target.labels_at, message, "rename one")
            target.tags = [tag for tag in dict.fromkeys(target.tags) if tag in selectors]

    def to_yaml(self, head: str) -> str:
        """Return the targets file."""
        return f"# {head}\ntargets:\n" + "".join(to_yaml(target.data()) for target in self.targets)


def merge_equal(drafts: Iterable[DraftQuery]) -> list[DraftQuery]:
    """Return the queries, each once, with the selectors of all equal ones."""
    merged: dict[str, DraftQuery] = {}
    for draft in drafts:
        first = merged.setdefault(repr(replace(draft, targets=()).data()), draft)
        if first is not draft:
            first.targets = tuple(dict.fromkeys((*first.targets, *draft.targets)))
    return list(merged.values())


def uri(
    *,
    dialect: str,
    user: object,
    password: object,
    host: object,
    port: object,
    database: object,
    options: object,
) -> str:
    """Return the URI of connection parameters, of which any except `dialect` may be None."""

    def encode(value: object) -> str:
        return percent_encode(str(value), safe="$")  # which marks a variable

    name = "" if user is None else encode(user)
    secret = "" if password is None else f":{encode(password)}"
    address = "" if host is None else f"[{host}]" if ":" in str(host) else encode(host)
    query = "&".join(f"{encode(key)}={encode(value)}" for key, value in _items(options))
    return (
        f"{dialect}://{name}{secret}{'@' if name or secret else ''}{address}"
        + ("" if port is None else f":{encode(port)}")
        + ("" if database is None else f"/{encode(database)}")
        + (f"?{query}" if query else "")
    )


def patterns(regex: str) -> list[str] | None:
    """Return patterns that match the same names as a regular expression of PostgreSQL; None if none do."""
    if grouped := re.fullmatch(r"\^\(([^()\\]*)\)\$", regex):
        parts = [f"^{part}$" for part in grouped[1].split("|")]
    else:
        parts = re.split(r"(?<!\\)\|", regex)
    globs = [_glob(part) for part in parts]
    if any(not glob or len(glob) > _LONGEST_PATTERN for glob in globs):
        return None
    return [glob for glob in globs if glob]


def _glob(regex: str) -> str | None:
    """Return the pattern of a regular expression without alternatives; None if there is none."""
    start, end = regex.startswith("^"), re.search(r"(?<!\\)\$$", regex) is not None
    body = regex[start : len(regex) - end]
    glob, at = "" if start else "*", 0
    while at < len(body):
        if body.startswith((".*", ".+"), at):
            glob += "*" if body[at + 1] == "*" else "?*"
            at += 2
        elif match := _CLASS.match(body, at):
            glob += f"[{'!' if match[1] else ''}{match[2]}]"
            at = match.end()
        elif match := _LITERAL.match(body, at):
            character = match[0][-1]
            glob += f"[{character}]" if character in "*?[" else character
            at = match.end()
        elif body[at] == ".":
            glob += "?"
            at += 1
        else:
            return None
        if at < len(body) and body[at] in "*+?{":
            return None
    return re.sub(r"\*+", "*", glob if end else f"{glob}*")


def _value_at(parent: SourceNode, key: str | int) -> Any:
    """Return the connection string at `parent.key`, also from parameters; "" if it is not in the file."""
    try:
        value = parent.value[key]
    except (LookupError, TypeError):
        return ""
    if isinstance(value, dict):
        parts = {
            part: value.get(part) for part in ("user", "password", "host", "port", "database", "options")
        }
        return uri(dialect=str(value.get("dialect")), **parts)
    return value if isinstance(value, str) and not isinstance(value, Tagged) else ""


def _without_secrets(conninfo: str) -> tuple[str | None, bool]:
    """Return the connection string without its password, and whether it has one.

    None instead of the string if it has other secrets, or if libpq cannot read it.
    """
    text = libpq_scheme(conninfo.strip())
    if "$" in text or "{{" in text or MASK in text:
        return None, False
    if _is_valid(text):
        return text, False
    # libpq decodes a password in a URI, but not one in a file.
    if "%" in userinfo(text).partition(":")[2]:
        return None, False
    without, count = _PASSWORD.subn("", mask_conninfo(text))
    without = without.strip()
    is_whole = count == 1 and MASK not in without and _is_valid(without)
    return (without, True) if is_whole else (None, False)


def _is_valid(url: str) -> bool:
    try:
        DeclaredIdentity.model_validate({"name": "x", "url": url})
    except ValidationError:
        return False
    return url.isprintable()


def _host_and_database(url: str | None) -> str:
    """Return a name from a connection string without secrets."""
    if url is None:
        return ""
    try:
        parts = urlsplit(url)
        host, database = parts.hostname, parts.path.strip("/")
    except ValueError:
        return ""
    return "_".join(filter(None, (host, database)))


def _valid_attributes(labels: Mapping[str, str], place: Place, losses: Losses) -> dict[str, str]:
    """Return the labels that can be attributes; report the others."""
    attributes: dict[str, str] = {}
    named: set[str] = set()
    for name, value in labels.items():
        data = {"attributes": {name: value}}
        try:
            DeclaredDefaults.model_validate(data)
        except ValidationError as error:
            message, _, advice = sentences(error, DeclaredDefaults, data)[0][1].partition("; ")
            losses.add_loss(place, f"the label {message}", advice or "rename it")
            continue
        if _label(name) in named:
            losses.add_loss(place, f"two labels are {_label(name)} in Prometheus", "rename one")
            continue
        named.add(_label(name))
        attributes[name] = value
    return attributes


def _bounded(connections: float | None, place: Place, losses: Losses) -> int | None:
    """Return the maximum number of connections in the poller's bounds; None if the tool has no maximum."""
    if connections is None or connections < 1:
        return None
    if connections > _MOST_CONNECTIONS:
        losses.add_change(place, f"the maximum is {_MOST_CONNECTIONS} connections")
    return min(int(connections), _MOST_CONNECTIONS)


def _moved(conninfo: str, file: str) -> str:
    """Return the message that a connection string is not copied but belongs into `file`."""
    if not conninfo:
        return f"the connection string is not in this file; write it to {file}, next to the targets file"
    foreign = foreign_parameters(libpq_scheme(conninfo))
    without = f", without {', '.join(foreign)}" if foreign else ""
    return (
        "the connection string is not copied, because it may contain a secret or is not libpq's; write it to "
        f"{file}, next to the targets file, as postgresql://user:password@host:5432/database{without}"
    )


def _is_secret(name: str) -> bool:
    return re.search("[@=]|://", name) is not None


def _label(name: str) -> str:
    return name.replace(".", "_")


def _items(options: object) -> list[tuple[str, object]]:
    if not isinstance(options, Mapping):
        return []
    return [
        (str(key), item)
        for key, value in options.items()
        for item in (value if isinstance(value, list) else [value])
    ]
