"""Non-numeric types of PostgreSQL, with an expression that converts each to a number.

Object identifiers of the built-in types never change (PostgreSQL: src/include/catalog/pg_type.dat).
"""

from __future__ import annotations

import re

from poller.model.numbers import NUMBERS

_EPOCH = "extract(epoch FROM {0})"
_TEXT = "{0}::text::numeric"
_COUNT = "count({0})"
"""Works for every type, even if its values contain no number."""
_CASTS: dict[int, tuple[str, str]] = {
    16: ("boolean", "({0})::int"),
    17: ("bytea", "octet_length({0})"),
    18: ('"char"', _TEXT),
    19: ("name", "{0}::numeric"),
    24: ("regproc", "{0}::oid"),
    25: ("text", "{0}::numeric"),
    27: ("tid", _COUNT),
    28: ("xid", "{0}::text::bigint"),
    29: ("cid", "{0}::text::bigint"),
    114: ("json", "({0} #>> '{{}}')::numeric"),
    142: ("xml", "(xpath('//text()', {0}))[1]::text::numeric"),
    600: ("point", "{0}[0]"),
    601: ("lseg", "length({0})"),
    602: ("path", "length({0})"),
    603: ("box", "area({0})"),
    604: ("polygon", "npoints({0})"),
    650: ("cidr", "masklen({0})"),
    705: ("unknown", _TEXT),
    718: ("circle", "radius({0})"),
    790: ("money", "{0}::numeric"),
    869: ("inet", "masklen({0})"),
    1042: ("char", "{0}::numeric"),
    1043: ("varchar", "{0}::numeric"),
    1082: ("date", _EPOCH),
    1083: ("time", _EPOCH),
    1114: ("timestamp", _EPOCH),
    1184: ("timestamptz", _EPOCH),
    1186: ("interval", _EPOCH),
    1266: ("timetz", _EPOCH),
    1560: ("bit", "{0}::bigint"),
    1562: ("varbit", "length({0})"),
    2202: ("regprocedure", "{0}::oid"),
    2203: ("regoper", "{0}::oid"),
    2204: ("regoperator", "{0}::oid"),
    2205: ("regclass", "{0}::oid"),
    2206: ("regtype", "{0}::oid"),
    2950: ("uuid", _COUNT),
    2970: ("txid_snapshot", "txid_snapshot_xmax({0})"),
    3220: ("pg_lsn", "{0} - '0/0'::pg_lsn"),
    3614: ("tsvector", "length({0})"),
    3615: ("tsquery", "numnode({0})"),
    3734: ("regconfig", "{0}::oid"),
    3769: ("regdictionary", "{0}::oid"),
    3802: ("jsonb", "({0} #>> '{{}}')::numeric"),
    3904: ("int4range", "upper({0}) - lower({0})"),
    3906: ("numrange", "upper({0}) - lower({0})"),
    3908: ("tsrange", "extract(epoch FROM upper({0}) - lower({0}))"),
    3910: ("tstzrange", "extract(epoch FROM upper({0}) - lower({0}))"),
    3912: ("daterange", "upper({0}) - lower({0})"),
    3926: ("int8range", "upper({0}) - lower({0})"),
    4089: ("regnamespace", "{0}::oid"),
    4096: ("regrole", "{0}::oid"),
    4191: ("regcollation", "{0}::oid"),
    4451: ("int4multirange", "upper({0}) - lower({0})"),
    4532: ("nummultirange", "upper({0}) - lower({0})"),
    4533: ("tsmultirange", "extract(epoch FROM upper({0}) - lower({0}))"),
    4534: ("tstzmultirange", "extract(epoch FROM upper({0}) - lower({0}))"),
    4535: ("datemultirange", "upper({0}) - lower({0})"),
    4536: ("int8multirange", "upper({0}) - lower({0})"),
    5038: ("pg_snapshot", "pg_snapshot_xmax({0})::text::numeric"),
    5069: ("xid8", _TEXT),
}  # fmt: skip
_TIMESTAMPTZ = 1184
_TIMES = {
    1082: "{0}::timestamp AT TIME ZONE 'UTC'",
    1114: "{0} AT TIME ZONE 'UTC'",
    **dict.fromkeys((20, 21, 23, 700, 701, 1700), "to_timestamp({0})"),
    **dict.fromkeys((25, 1043), "{0}::timestamptz"),
}
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


def not_a_number(column: str, oid: int) -> str:
    """Return why the type `oid` of a value column is not usable, and which expression to write instead."""
    name, expression = _CASTS.get(oid, (f"of the type with OID {oid}", _COUNT))
    advice = f"write {expression.format(_quoted(column))}"
    if expression == _COUNT:
        advice = f"make it an attribute column, or {advice}"
    return f"value column {column!r} is {name}, not a number; {advice}"


def not_a_time(column: str, oid: int) -> str | None:
    """Return why the type `oid` of a time column is not usable, with the fix; None if it is `timestamptz`."""
    if oid == _TIMESTAMPTZ:
        return None
    name = _CASTS.get(oid, ("a number" if oid in NUMBERS else f"of the type with OID {oid}", ""))[0]
    advice = f"write {_TIMES[oid].format(_quoted(column))}" if oid in _TIMES else "select a timestamptz"
    return f"time column {column!r} is {name}, not timestamptz, which is a point in time; {advice}"


def _quoted(column: str) -> str:
    return column if _PLAIN.fullmatch(column) else '"' + column.replace('"', '""') + '"'
