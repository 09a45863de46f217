"""Say why there is no connection to the database, and what to do about it."""

from __future__ import annotations

import re

from poller.checkup.finding import Finding
from poller.errors import PollError

_FULL = "the server has no free connection: raise max_connections, or end some sessions"
_ADVICE = (
    ("Connection refused", "start the server, or correct host and port (and its listen_addresses)"),
    (
        "could not translate host name|failed to resolve host",
        "correct the host's name, or make it known to DNS here",
    ),
    ("timeout expired", "nothing answers there: look for a firewall, or raise POLLER_CONNECT_TIMEOUT"),
    ("No such file or directory", "correct the socket's directory (host=) and port, or start the server"),
    ("no pg_hba.conf entry", "let the role in from here in the server's pg_hba.conf, then reload it"),
    ("no password supplied", "give one by POLLER_DATABASE_URL_FILE, PGPASSFILE or POLLER_PASSWORD_COMMAND"),
    ("authentication failed", "check role and password; to set a new one: \\password in psql on the primary"),
    ("too many connections for role", "end what else logs in with this role, or raise CONNECTION LIMIT"),
    ("too many clients", _FULL),
    ("remaining connection slots", _FULL),
    ("is not permitted to log in", "ALTER ROLE ... LOGIN on the primary; deploy/role.sql does"),
    (r'role ".{0,200}" does not exist', "make the role on the primary: deploy/role.sql"),
    (r'database ".{0,200}" does not exist', "correct the database's name"),
    ("permission denied for database", "GRANT CONNECT ON DATABASE to the role; deploy/role.sql does"),
    ("does not support SSL", "set ssl = on on the server; another sslmode only inside a trusted network"),
    ("root certificate file", "name the authority's file with sslrootcert, or sslrootcert=system"),
    ("does not match host name", "connect by a name that stands in the server's certificate"),
    ("certificate verify failed", "name the authority of the server's certificate with sslrootcert"),
    ("certificate", "look at sslcert, sslkey and sslrootcert, and at what the server's pg_hba.conf asks for"),
    ("standby mode|session is (not )?read-only", "no server is what target_session_attrs asks for"),
    ("starting up|not yet accepting", "wait: the server is starting"),
)
"""What libpq or the server says (in another language there is no advice), and what to do about it."""


def unreachable(error: PollError, place: str) -> Finding:
    """Say why there is no connection; `place` is the connection string without its secrets."""
    known = (advice for pattern, advice in _ADVICE if re.search(pattern, error.message))
    return Finding(
        "database",
        "fail",
        f"{place}: {error.message}",
        next(known, error.hint or "correct POLLER_DATABASE_URL, or what stands between here and there"),
        facts={"error": error.kind, "sqlstate": error.sqlstate},
    )
