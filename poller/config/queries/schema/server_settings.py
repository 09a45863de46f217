"""PostgreSQL settings that a query may change for itself, with their values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from poller.config.queries.schema.schedule import AS_TIME_ZONE, time_zone
from poller.model.text import kind_of, near, quote

_MOST_CHARACTERS = 1024
_KILOBYTES = {"B": 1 / 1024, "kB": 1.0, "MB": 1024.0, "GB": 1024.0**2, "TB": 1024.0**3}


class _SettingValues(NamedTuple):
    """The values that a setting may have."""

    expected: str
    pattern: str
    json: dict[str, Any]
    """JSON Schema of the values."""
    least: float = -math.inf
    most: float = math.inf
    base: float = 1.0
    """Kilobytes of a size without a unit."""

    def accepts(self, text: str) -> bool:
        match = re.fullmatch(self.pattern, text)
        if match is None or self.most == math.inf:
            return match is not None
        unit = match[2] if match.lastindex == 2 else None
        return self.least <= float(match[1]) * (_KILOBYTES[unit] if unit else self.base) <= self.most


def _words(*words: str) -> _SettingValues:
    switches = [word == "on" for word in words if word in ("on", "off")]
    return _SettingValues(" or ".join(words), "|".join(words), {"enum": [*words, *switches]})


def _number(least: float, most: float) -> _SettingValues:
    json = {"type": "number", "minimum": least, "maximum": most}
    pattern = r"(-?[0-9]{1,12}(?:\.[0-9]{1,20})?(?:e-?[0-9]{1,2})?)"
    return _SettingValues(f"a number from {least:g} to {most:g}", pattern, json, least, most)


def _whole(least: int, most: int) -> _SettingValues:
    json = {"type": "integer", "minimum": least, "maximum": most}
    return _SettingValues(f"a whole number from {least} to {most}", "([0-9]{1,10})", json, least, most)


def _size(least: int, most: str, base: float = 1.0) -> _SettingValues:
    """Sizes from `least` to `most` kilobytes; a number without a unit counts units of `base` kilobytes."""
    pattern = "([0-9]{1,12}) ?(B|kB|MB|GB|TB)?"
    json = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^{pattern}$"}]}
    highest = int(most[:-2]) * _KILOBYTES[most[-2:]]
    return _SettingValues(f"a size from {least}kB to {most}", pattern, json, least, highest, base)


def _text(example: str) -> _SettingValues:
    pattern = rf"[^\x00-\x1f\x7f]{{1,{_MOST_CHARACTERS}}}"
    json = {"type": ["string", "number"], "pattern": f"^{pattern}$"}
    return _SettingValues(f"one line of at most {_MOST_CHARACTERS} characters, like {example}", pattern, json)


_SWITCH = _words("off", "on")
_COST = _number(0, 1e10)
_ABOVE_COST = _number(-1, 1e10)
_TABLES = _whole(1, 16)
"""Planning time and memory grow exponentially with the tables that are planned together."""
_SHARE = _number(0, 1)
_METHODS = (
    "async_append", "bitmapscan", "distinct_reordering", "gathermerge", "group_by_reordering", "hashagg",
    "hashjoin", "incremental_sort", "indexonlyscan", "indexscan", "material", "memoize", "mergejoin",
    "nestloop", "parallel_append", "parallel_hash", "partition_pruning", "partitionwise_aggregate",
    "partitionwise_join", "presorted_aggregate", "self_join_elimination", "seqscan", "sort", "tidscan",
)  # fmt: skip
ALLOWED: Mapping[str, _SettingValues] = {
    "search_path": _text("tenant_a"),
    # The server knows other names as well: abbreviations, and offsets whose sign is that of POSIX.
    "TimeZone": _text("Europe/Berlin")._replace(json={"type": "string", "pattern": AS_TIME_ZONE}),
    # Each sort or hash of a plan, and each of its workers, may use this much memory.
    "work_mem": _size(64, "1GB"),
    "hash_mem_multiplier": _number(1, 4),
    "max_parallel_workers_per_gather": _whole(0, 8),
    "parallel_leader_participation": _SWITCH,
    "parallel_setup_cost": _COST,
    "parallel_tuple_cost": _COST,
    "min_parallel_table_scan_size": _size(0, "1TB", 8.0),
    "min_parallel_index_scan_size": _size(0, "1TB", 8.0),
    "jit": _SWITCH,
    "jit_above_cost": _ABOVE_COST,
    "jit_inline_above_cost": _ABOVE_COST,
    "jit_optimize_above_cost": _ABOVE_COST,
    # From 1 on, the price of a sequentially read page, so that the unit of cost stays the same.
    "random_page_cost": _number(1, 1000),
    "effective_cache_size": _size(8, "16TB", 8.0),
    "recursive_worktable_factor": _number(0.001, 1e6),
    "from_collapse_limit": _TABLES,
    "join_collapse_limit": _TABLES,
    "geqo": _SWITCH,
    "geqo_threshold": _whole(2, 16),
    "geqo_effort": _whole(1, 10),
    "geqo_seed": _SHARE,
    "constraint_exclusion": _words("partition", "on", "off"),
    "plan_cache_mode": _words("auto", "force_custom_plan", "force_generic_plan"),
    **{f"enable_{method}": _SWITCH for method in _METHODS},
    "pg_trgm.similarity_threshold": _SHARE,
    "pg_trgm.word_similarity_threshold": _SHARE,
    "pg_trgm.strict_word_similarity_threshold": _SHARE,
    "hnsw.ef_search": _whole(1, 1000),
    "hnsw.iterative_scan": _words("off", "relaxed_order", "strict_order"),
    "hnsw.max_scan_tuples": _whole(1, 2**31 - 1),
    "ivfflat.probes": _whole(1, 32768),
    "ivfflat.iterative_scan": _words("off", "relaxed_order"),
}
"""Settings that weaken no safeguard, by name."""
_REFUSED = tuple(
    (re.compile(pattern, re.IGNORECASE), message)
    for pattern, message in (
        ("statement_timeout", "is set by the poller; write timeout"),
        ("lock_timeout", "is set by the poller; set POLLER_LOCK_TIMEOUT"),
        (
            r"(idle_|transaction_|idle_in_transaction_)\w*timeout|client_connection_\w+|tcp_\w+|deadlock_timeout",
            "limits how long the server works or waits for the poller; omit it",
        ),
        (
            r"(default_)?transaction_(isolation|deferrable)",
            "would change the transaction of all queries of a tick; omit it, or write snapshot: false",
        ),
        ("(default_)?transaction_read_only", "would let a query write; omit it"),
        (
            "role|session_authorization|session_replication_role|row_security",
            "decides about privileges; connect as the role that the query needs",
        ),
        (
            (
                r"client_encoding|standard_conforming_strings|escape_string_warning|backslash_quote|DateStyle"
                r"|IntervalStyle|extra_float_digits|bytea_output|xmlbinary|xmloption|transform_null_equals"
                r"|array_nulls|quote_all_identifiers|gin_fuzzy_search_limit"
            ),
            "is set by the poller, so that SQL and values mean the same on every server; convert in SQL",
        ),
        (
            r"seq_page_cost|cpu_\w+",
            "would change the unit of the planner's cost, which above_cost limits; write random_page_cost",
        ),
        (
            r"(maintenance|autovacuum|logical_decoding)_work_mem|temp_buffers|temp_file_limit",
            "limits memory or disk space that no query may change; write work_mem",
        ),
        (r"log_\w+|track_\w+|compute_query_id|application_name", "changes what the server records; omit it"),
    )
)
"""Names of settings that a query may not change, and the reason with the remedy."""


def _problem(name: str) -> str | None:
    """Return why a query may not change the setting `name`; None if it may."""
    if name in ALLOWED:
        return None
    for pattern, message in _REFUSED:
        if pattern.fullmatch(name):
            return message
    if (similar := near(name.lower(), {known.lower(): known for known in ALLOWED}, 0.8)) is not None:
        similar = next(known for known in ALLOWED if known.lower() == similar)
        return f"is not a setting that a query may change; did you mean {similar!r}?"
    return "is not a setting that a query may change; set it for the role: ALTER ROLE ... SET"


def setting_value(name: str, value: object) -> str:
    """Return the value of the setting `name` as PostgreSQL's text; raises ValueError if it is refused."""
    if (problem := _problem(name)) is not None:
        raise ValueError(problem)
    kind = ALLOWED[name]
    is_text = "pattern" in kind.json
    if isinstance(value, bool) and not is_text:
        value = "on" if value else "off"
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int | float) and not isinstance(value, bool) and kind.accepts(str(value)):
        return time_zone(str(value)) if name == "TimeZone" else str(value)
    actual = quote(value) if isinstance(value, str | int | float) and value != "" else kind_of(value or None)
    raise ValueError(f"is {actual}; write {kind.expected}")


def _with_names(value: object) -> object:
    """Return a mapping whose values contain their names, because the name decides about the value."""
    return {name: (name, item) for name, item in value.items()} if isinstance(value, Mapping) else value


_Value = Annotated[str, BeforeValidator(lambda pair: setting_value(*pair))]
ServerSettings = Annotated[Mapping[str, _Value], BeforeValidator(_with_names)]
"""PostgreSQL settings by name."""
AS_SERVER_SETTINGS: dict[str, Any] = {
    "additionalProperties": False,
    "properties": {name: kind.json for name, kind in ALLOWED.items()},
}
"""JSON Schema of the settings."""
