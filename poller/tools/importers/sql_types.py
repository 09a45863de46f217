"""Type inference for SQL expressions from PostgreSQL's own types, functions and operators.

The type of an expression is None unless it is certain: a wrong type could change a value.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

Kind = Literal["text", "time", "boolean"]
"""Kind of a column's value, which determines its conversion to a number."""
SqlType = Literal[
    "timestamp", "date", "clock", "interval", "temporal", "boolean", "number", "text", "other", "literal"
]
"""Group of types with the same rules.

`temporal` means any of the four types before it. `other` is a type without arithmetic, such as json. A
`literal` is a quoted constant or NULL, whose type depends on its context.
"""

_TEMPORAL: frozenset[SqlType] = frozenset(("timestamp", "date", "clock", "interval", "temporal"))

TYPES: dict[str, SqlType] = {
    **dict.fromkeys(("timestamptz", "timestamp"), "timestamp"),
    **dict.fromkeys(("time", "timetz"), "clock"),
    "date": "date",
    "interval": "interval",
    "bool": "boolean",
    **dict.fromkeys(("int2", "int4", "int8", "float4", "float8", "numeric"), "number"),
    **dict.fromkeys(("text", "varchar", "name", "bpchar", "char"), "text"),
    **dict.fromkeys(("json", "jsonb", "uuid", "inet", "cidr", "xml", "bytea", "pg_lsn"), "other"),
}
"""Types by name in `pg_type`."""
# The parser translates "smallint", "double precision" and similar names to the names above.

FUNCTIONS: dict[str, SqlType] = {
    **dict.fromkeys(("now", "clock_timestamp", "statement_timestamp", "transaction_timestamp"), "timestamp"),
    **dict.fromkeys(("to_timestamp", "make_timestamp", "make_timestamptz", "date_bin"), "timestamp"),
    **dict.fromkeys(("pg_postmaster_start_time", "pg_conf_load_time"), "timestamp"),
    **dict.fromkeys(("pg_last_xact_replay_timestamp", "pg_xact_commit_timestamp"), "timestamp"),
    **dict.fromkeys(("pg_stat_get_last_vacuum_time", "pg_stat_get_last_autovacuum_time"), "timestamp"),
    **dict.fromkeys(("pg_stat_get_last_analyze_time", "pg_stat_get_last_autoanalyze_time"), "timestamp"),
    **dict.fromkeys(("date", "make_date", "to_date"), "date"),
    **dict.fromkeys(("make_interval", "justify_days", "justify_hours", "justify_interval"), "interval"),
    **dict.fromkeys(("date_trunc", "timezone"), "temporal"),
    **dict.fromkeys(("bool_and", "bool_or", "every", "isfinite", "starts_with", "overlaps"), "boolean"),
    **dict.fromkeys(("pg_is_in_recovery", "pg_is_wal_replay_paused", "pg_table_is_visible"), "boolean"),
    **dict.fromkeys(("has_table_privilege", "has_database_privilege", "has_schema_privilege"), "boolean"),
    **dict.fromkeys(("has_column_privilege", "has_function_privilege", "pg_has_role"), "boolean"),
    **dict.fromkeys(("count", "row_number", "rank", "dense_rank", "ntile", "length", "random"), "number"),
    **dict.fromkeys(("extract", "date_part", "round", "floor", "ceil", "ceiling", "abs", "sign"), "number"),
    **dict.fromkeys(("pg_database_size", "pg_relation_size", "pg_table_size", "pg_indexes_size"), "number"),
    **dict.fromkeys(("pg_total_relation_size", "pg_tablespace_size", "pg_wal_lsn_diff"), "number"),
    **dict.fromkeys(("array_length", "cardinality", "pg_backend_pid", "position", "strpos"), "number"),
    **dict.fromkeys(("quote_ident", "quote_literal", "format", "current_setting", "version"), "text"),
    **dict.fromkeys(("concat", "concat_ws", "to_char", "md5", "split_part", "left", "right"), "text"),
    **dict.fromkeys(("replace", "regexp_replace", "translate", "initcap", "repeat", "lpad", "rpad"), "text"),
    **dict.fromkeys(("current_database", "current_schema", "pg_get_expr", "pg_get_userbyid"), "text"),
    **dict.fromkeys(("format_type", "pg_size_pretty", "pg_walfile_name", "obj_description"), "text"),
    **dict.fromkeys(("pg_get_indexdef", "pg_get_constraintdef", "pg_get_viewdef", "array_to_string"), "text"),
    **dict.fromkeys(("inet_server_addr", "inet_client_addr", "pg_current_wal_lsn"), "other"),
    **dict.fromkeys(("pg_last_wal_replay_lsn", "pg_last_wal_receive_lsn"), "other"),
}
"""Functions of `pg_catalog` whose variants all return the same type."""

_OF_FIRST = frozenset(
    ("min", "max", "lag", "lead", "first_value", "last_value", "nth_value", "any_value", "generate_series")
)
"""Functions that return the type of their first argument."""

RELATIONS: dict[str, dict[str, SqlType]] = {
    **{
        f"pg_stat_{which}_tables": dict.fromkeys(
            (
                *("last_seq_scan", "last_idx_scan", "last_vacuum", "last_autovacuum"),
                *("last_analyze", "last_autoanalyze"),
            ),
            "timestamp",
        )
        for which in ("all", "sys", "user")
    },
    **{f"pg_stat_{which}_indexes": {"last_idx_scan": "timestamp"} for which in ("all", "sys", "user")},
    **{
        f"pg_stat_{which}": {"stats_reset": "timestamp"}
        for which in (
            *("bgwriter", "checkpointer", "io", "recovery_prefetch", "replication_slots", "slru"),
            *("statements_info", "subscription_stats", "wal"),
        )
    },
    "pg_stat_activity": dict.fromkeys(
        ("backend_start", "xact_start", "query_start", "state_change"), "timestamp"
    ),
    "pg_stat_archiver": dict.fromkeys(("last_archived_time", "last_failed_time", "stats_reset"), "timestamp"),
    "pg_stat_database": dict.fromkeys(("checksum_last_failure", "stats_reset"), "timestamp"),
    "pg_stat_gssapi": dict.fromkeys(("gss_authenticated", "encrypted", "credentials_delegated"), "boolean"),
    "pg_stat_replication": {
        **dict.fromkeys(("backend_start", "reply_time"), "timestamp"),
        **dict.fromkeys(("write_lag", "flush_lag", "replay_lag"), "interval"),
    },
    "pg_stat_ssl": {"ssl": "boolean"},
    "pg_stat_statements": {
        **dict.fromkeys(("stats_since", "minmax_stats_since"), "timestamp"),
        "toplevel": "boolean",
    },
    **dict.fromkeys(
        ("pg_stat_subscription", "pg_stat_wal_receiver"),
        dict.fromkeys(("last_msg_send_time", "last_msg_receipt_time", "latest_end_time"), "timestamp"),
    ),
    "pg_locks": {"granted": "boolean", "fastpath": "boolean", "waitstart": "timestamp"},
    "pg_prepared_xacts": {"prepared": "timestamp"},
    "pg_replication_slots": {
        **dict.fromkeys(("temporary", "active", "two_phase", "conflicting", "failover", "synced"), "boolean"),
        "inactive_since": "timestamp",
    },
    "pg_settings": {
        "pending_restart": "boolean",
        **dict.fromkeys(("setting", "boot_val", "reset_val"), "text"),
    },
    "pg_database": dict.fromkeys(("datistemplate", "datallowconn", "dathasloginevt"), "boolean"),
}
"""Columns of the server's relations that are not numbers; all times and booleans among them are listed."""

_COMPARISONS = frozenset(
    (
        *("=", "<>", "!=", "<", ">", "<=", ">=", "~", "~*", "!~", "!~*", "~~", "~~*", "!~~", "!~~*"),
        *("@>", "<@", "@@", "@?", "?", "?|", "?&"),
    )
)
"""Binary operators that return a boolean for all operand types."""


def kind_of(type_: SqlType | None) -> Kind | None:
    """Return how a value of `type_` becomes a number; None for a number or an unknown type."""
    if type_ in _TEMPORAL:
        return "time"
    if type_ in ("text", "other", "literal"):
        return "text"
    return "boolean" if type_ == "boolean" else None


def common(types: Collection[SqlType | None]) -> SqlType | None:
    """Return the type of an expression with alternatives of these types, such as CASE or UNION.

    PostgreSQL requires alternatives of one category and ignores literals among them. One known type therefore
    determines the category of the others.
    """
    certain = {type_ for type_ in types if type_ is not None and type_ != "literal"}
    if not certain:
        return None if None in types else "literal"
    if len(certain) > 1:
        return "temporal" if certain <= _TEMPORAL else None
    (only,) = certain
    # A date next to a timestamp becomes a timestamp.
    return "temporal" if only == "date" and None in types else only


def infer_call(name: str, arguments: Sequence[SqlType | None]) -> SqlType | None:
    """Return the result type of the function `name` of pg_catalog."""
    first = arguments[0] if arguments else None
    if name in _OF_FIRST:
        if first == "date" and name == "generate_series":
            return "timestamp"
        return None if first == "literal" else first
    if name in ("sum", "avg"):
        return "number" if first == "number" else "interval" if first in _TEMPORAL else None
    if name == "age":
        # age(xid) returns a number of transactions.
        return "interval" if len(arguments) == 2 or first in ("timestamp", "date") else None
    if name in ("lower", "upper"):
        # For a range, lower() and upper() return its bounds.
        return "text" if first in ("text", "literal") else None
    return FUNCTIONS.get(name)


def infer_operator(sign: str, left: SqlType | None, right: SqlType | None) -> SqlType | None:
    """Return the type of `left sign right`."""
    if sign in _COMPARISONS:
        return "boolean"
    if sign == "->>" or sign == "#>>":
        return "text"
    if sign == "||":
        return "text" if {left, right} <= {"text", "number", "literal"} else "other"
    rule = {"+": _plus, "-": _minus}.get(sign)
    if rule is not None and (result := rule(left, right)):
        return result
    if (left == "interval" and sign in "*/") or (right == "interval" and sign == "*"):
        return "interval"
    return "number" if {left, right} in ({"number"}, {"number", "literal"}) else None


def infer_prefix(sign: str, operand: SqlType | None) -> SqlType | None:
    """Return the type of `sign operand`."""
    return operand if sign in ("+", "-") and operand in ("number", "interval") else None


# Date/time operators: PostgreSQL manual, "Date/Time Functions and Operators". For a literal and another type,
# PostgreSQL applies the operator of that type with itself, if there is one.


def _plus(left: SqlType | None, right: SqlType | None) -> SqlType | None:
    pair = {left, right}
    if "timestamp" in pair:
        return "timestamp"
    if pair in ({"interval"}, {"interval", "literal"}):
        return "interval"
    if pair == {"date", "number"}:
        return "date"
    return "temporal" if pair & _TEMPORAL else None


def _minus(left: SqlType | None, right: SqlType | None) -> SqlType | None:
    if left == right == "date" or {left, right} == {"date", "literal"}:
        return "number"
    if left == "date" and right == "number":
        return "date"
    if left in ("timestamp", "clock") and right == "interval":
        return left
    if "timestamp" in (left, right):
        other = right if left == "timestamp" else left
        return "interval" if other in ("timestamp", "date", "literal") else "temporal"
    if {left, right} in ({"interval"}, {"interval", "literal"}, {"clock"}):
        return "interval"
    return "temporal" if {"interval", "clock"} & {left, right} else None
