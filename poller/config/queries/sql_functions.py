"""Functions that have side effects despite READ ONLY, and volatile functions that only read.

The lists cover PostgreSQL and its contrib modules; a test compares them with `pg_proc` of releases 15 and 18.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_OMIT = "omit it"
_LOCKS = "omit it: the poller takes no locks"
_THE_SQL_ITSELF = "write that statement itself, so that it is checked"
_ACTING: tuple[tuple[str, str, str], ...] = (
    # SQL in a text cannot be checked, and may call any of the other functions.
    (r"ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table", "runs SQL from a text", _THE_SQL_ITSELF),
    (r"(query|cursor|table|schema|database)_to_xml\w*", "runs SQL from a text or a name", _THE_SQL_ITSELF),
    (r"dblink(_\w+)?|postgres_fdw_disconnect(_all)?", "acts through another connection", _OMIT),
    (r"set_config|set_limit|isn_weak", "changes a setting of the session", "write it under settings"),
    (r"setval|nextval", "changes a sequence", _OMIT),
    (r"pg_notify", "sends a notification", _OMIT),
    (r"pg_(try_)?advisory_\w+", "takes or releases locks", _LOCKS),
    (r"bt_index_parent_check", "locks a table against writes", "write bt_index_check"),
    (
        (
            r"pg_(cancel|terminate)_backend|pg_reload_conf|pg_rotate_logfile\w*|pg_promote|pg_log_\w+"
            r"|pg_logical_emit_message|pg_switch_(wal|xlog)|pg_create_restore_point"
            r"|pg_(wal|xlog)_replay_(pause|resume)|pg_(backup_start|backup_stop|start_backup|stop_backup)"
        ),
        "acts on the server",
        _OMIT,
    ),
    (
        (
            r"pg_(create|copy)_\w*_slot|pg_drop_replication_slot|pg_logical_slot_\w+|pg_replication_slot_advance"
            r"|pg_sync_\w+|pg_replication_origin_(create|drop|advance|session_setup|session_reset|xact_\w+)"
        ),
        "acts on replication",
        _OMIT,
    ),
    (
        r"pg_stat_reset\w*|pg_(?!stat_get_)\w+_reset(_all)?|pg_(clear|restore)_(attribute|relation)_stats",
        "changes statistics",
        _OMIT,
    ),
    (r"pg_buffercache_(evict|mark_dirty)\w*|pg_prewarm|autoprewarm_\w+", "changes the cache", _OMIT),
    (
        (
            r"heap_force_\w+|brin_(de)?summarize_\w+|gin_clean_pending_list|pg_truncate_visibility_map|pg_nextoid"
            r"|binary_upgrade_\w+|pg_import_system_collations|pg_extension_config_dump"
            r"|pg_stop_making_pinned_objects"
        ),
        "changes what is stored",
        _OMIT,
    ),
    (
        (
            r"lo_(open|close|creat|create|unlink|import|export|put|from_bytea|(truncate|lseek|tell)(64)?)|lo(read|write)"
            r"|pg_file_\w+|pg_read_(binary_)?file\w*|pg_ls_dir|pg_stat_file"
        ),
        "reaches large objects or files of the server",
        "read pg_largeobject_metadata, or the pg_ls_...dir functions that pg_monitor may call",
    ),
    (r"txid_current|pg_current_xact_id|pg_export_snapshot", "assigns or exports a transaction", _OMIT),
)
_ACTS = [(re.compile(pattern), does, instead) for pattern, does, instead in _ACTING]

_HARMLESS = re.compile(
    # Values that differ at each call.
    r"random(_normal)?|normal_rand|setseed|array_(sample|shuffle)|gen_(random_uuid|random_bytes|salt)"
    r"|uuidv[47]|uuid_generate_v\w+|pgp_(pub|sym)_encrypt(_bytea)?|clock_timestamp|timeofday|current_query"
    r"|currval|lastval|pg_sleep(_for|_until)?"
    # Sizes, settings, statistics and the state of the server.
    r"|pg_(database|tablespace|relation|table|indexes|total_relation)_size|pg_relpages|pg_sequence_last_value"
    r"|pg_get_sequence_data|pg_partition_(tree|ancestors)|pg_(database_)?collation_actual_version"
    r"|pg_stat_(get|have)_\w+|pg_stat_(clear_snapshot|force_next_flush)|pg_stat_statements(_info)?|pg_control_\w+"
    r"|pg_is_(in_recovery|wal_replay_paused)|pg_(current|last)_(wal|xlog|xact|committed)_\w+"
    r"|pg_is_xlog_replay_paused|pg_get_wal_\w+|pg_wal_summary_contents|pg_available_wal_summaries"
    r"|pg_(lock_status|prepared_xact|blocking_pids|safe_snapshot_blocking_pids|notification_queue_usage)"
    r"|pg_isolation_test_session_is_blocked|pg_xact_(status|commit_timestamp(_origin)?)|txid_status"
    r"|pg_get_(aios|backend_memory_contexts|loaded_modules|multixact_members|shmem_allocations(_numa)?)"
    r"|pg_get_(wait_events|logical_snapshot_(info|meta))|pg_(hba_file_rules|ident_file_mappings)"
    r"|pg_show_(all_file_settings|replication_origin_status)|pg_jit_available|pg_old_snapshot_time_mapping"
    r"|pg_replication_origin_(progress|session_is_setup|session_progress)|pg_current_logfile|pg_logdir_ls"
    r"|pg_ls_(archive_status|log|logicalmap|logicalsnap|replslot|summaries|tmp|wal)dir|ssl_\w+"
    # Pages, indexes and tuples, read as they are.
    r"|amvalidate|currtid2|lo_get|xslt_process|\w+_validator|postgres_fdw_get_connections"
    r"|pg_buffercache_(numa_pages|os_pages|pages|summary|usage_counts)|pg_(freespace|visibility\w*)"
    r"|pg_check_(frozen|visible)|pgstat\w+|pgrowlocks|bt_index_check|gin_index_check|verify_heapam"
    r"|(brin|bt|gin|gist|hash|heap)_(meta|page|multi_page|revmap|leafpage|bitmap|tuple)\w*"
    r"|fsm_page_contents|get_raw_page|page_(checksum|header)|tuple_data_split"
)


class Call(NamedTuple):
    """A function call in a parse tree, with the names as the grammar folds them."""

    schema: str | None
    name: str
    arguments: int
    """Number of arguments."""
    of_row: bool = False
    """Whether it may be a column: `t.name` means `name(t)` if `t` has no such column."""


def acting(name: str) -> str | None:
    """Return the side effect of the function `name` despite READ ONLY, and the fix; None if it has none."""
    for pattern, does, instead in _ACTS:
        if pattern.fullmatch(name):
            return f"calls {name}, which {does}; {instead}"
    return None


def is_harmless(name: str) -> bool:
    """Return whether `name` is a volatile function of PostgreSQL or contrib that only reads."""
    return _HARMLESS.fullmatch(name) is not None and acting(name) is None


def walk(tree: Any) -> Iterator[dict[str, Any]]:
    """Return every node of a parse tree, at any depth; without recursion, because `a+a+...` is deep."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            yield node
            pending.extend(node.values())


def calls(tree: Any) -> Iterator[Call]:
    """Return every function call in a parse tree, in both notations: `f(x)` and `(x).f`."""
    for node in walk(tree):
        if call := node.get("FuncCall"):
            names = _strings(call.get("funcname", []))
            if names:
                schema = names[-2] if len(names) > 1 else None
                yield Call(schema, names[-1], len(call.get("args", [])))
        if indirection := node.get("A_Indirection"):
            yield from (Call(None, name, 1) for name in _strings(indirection.get("indirection", [])))
        if column := node.get("ColumnRef"):
            fields = _strings(column.get("fields", []))
            if len(fields) > 1:
                yield Call(None, fields[-1], 1, of_row=True)


def _strings(parts: list[Any]) -> list[str]:
    return [str(part["String"].get("sval", "")) for part in parts if "String" in part]
