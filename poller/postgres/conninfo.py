"""Connection strings: their server and database, and what is wrong with invalid ones."""

from __future__ import annotations

import os
import re

import psycopg
from psycopg.conninfo import conninfo_to_dict

from poller.model.secrets import URL, foreign_parameters, is_ambiguous
from poller.model.target import Target
from poller.model.text import host_port


def is_conninfo(text: str) -> bool:
    """Return whether libpq accepts `text` as a connection string and reads it without ambiguity."""
    try:
        given = conninfo_to_dict(text)
    except (psycopg.ProgrammingError, UnicodeError):
        return False
    return bool(re.fullmatch(r"[0-9, ]*", str(given.get("port") or ""))) and not is_ambiguous(text)


def server_of(conninfo: str) -> str:
    """Return the hosts and ports of a connection string, as text without secrets; empty if it is invalid.

    libpq's environment has those that it omits. The text is `host:port`, with commas between several. The
    address of a host (`hostaddr`) follows in parentheses, because it decides which server is reached. Neither
    the user nor the password is in the text, so it stays when they are changed.
    """
    if not is_conninfo(conninfo):
        return ""
    given = {name: str(value) for name, value in conninfo_to_dict(conninfo).items() if value}
    names = ("service", "host", "hostaddr", "port")
    service, host, address, port = (given.get(name) or os.environ.get(f"PG{name.upper()}") for name in names)
    if given.keys().isdisjoint(names[1:]) and service:
        return f"service {service}"
    hosts = (host or address or "local").split(",")
    ports = (port or "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    pairs = zip(hosts, ports, strict=False)  # libpq rejects other numbers of ports
    named = ",".join(host_port(name or "local", number or "5432") for name, number in pairs)
    more = [address or "" if host else "", f"service {service}" if service else ""]
    return f"{named} ({', '.join(filter(None, more))})" if any(more) else named


def server_of_target(target: Target) -> str:
    """Return the hosts and ports of a target; empty if its connection string cannot be read."""
    try:
        return server_of(target.conninfo())
    except (OSError, ValueError):
        return ""


def database_name(conninfo: str) -> str:
    """Return the database that a connection string or libpq's environment names; empty if neither does."""
    if not is_conninfo(conninfo):
        return ""
    return str(conninfo_to_dict(conninfo).get("dbname") or os.environ.get("PGDATABASE", ""))


def database_of(conninfo: str) -> dict[str, object]:
    """Return the parts of a connection string that identify a database, to compare two strings."""
    parts = {"port": "5432", **conninfo_to_dict(conninfo)}  # the port is optional
    return {name: parts.get(name) for name in ("host", "hostaddr", "port", "dbname", "service")}


# Repeat only these words in a message: any other part may be a password.
_FOREIGN_SCHEME = re.compile(
    r"\s*((?:postgres(?:ql)?\+(?:asyncpg|psycopg|psycopg2|pg8000|aiopg)|jdbc:postgresql|mysql|mariadb|http|https)://)"
)
_FOREIGN_KEYWORD = re.compile(r"(?:^|\s)(passwd|pass|pwd|username|database|db|hostname|server)\s*=")
_NO_SCHEME = re.compile(r"[\w.-]+:[0-9]+/\w*")
NOT_UNDERSTOOD = "libpq does not understand the connection string"
WRITE_INSTEAD = (
    "write postgresql://user:password@host:5432/database, with special characters of the password as %XX"
)


def misunderstood(conninfo: str) -> tuple[str, str]:
    """Return what is wrong with a connection string that libpq rejects, and what to write instead."""
    if scheme := _FOREIGN_SCHEME.match(conninfo):
        return f"{NOT_UNDERSTOOD}: it begins with {scheme[1]}", "begin it with postgresql://"
    if URL.match(conninfo) and is_ambiguous(conninfo):
        return f"{NOT_UNDERSTOOD}: its password has an @ or / that is not escaped", WRITE_INSTEAD
    if names := foreign_parameters(conninfo):
        single = len(names) == 1
        subject = f"the parameter {names[0]}" if single else f"the parameters {', '.join(names)}"
        subject += f" of the connection string, which {'belongs' if single else 'belong'} to another driver"
        remove = f"remove {'it' if single else 'them'}"
        return (
            f"libpq does not know {subject}",
            f"{remove}; a setting of the server is written options=-c%20NAME=VALUE",
        )
    if "://" not in conninfo and (keyword := _FOREIGN_KEYWORD.search(conninfo)):
        return (
            f"libpq does not know the keyword {keyword[1]} of the connection string",
            "write the keyword as libpq does: host, port, dbname, user, password",
        )
    if _NO_SCHEME.fullmatch(conninfo.strip()):
        return f"{NOT_UNDERSTOOD}: it has no scheme", "begin it with postgresql://"
    return NOT_UNDERSTOOD, WRITE_INSTEAD
