"""Privileges that a role needs, on relations, schemas, roles and functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RelationName = tuple[str, str]
"""Schema and name."""
CLOSED = re.compile(
    r"pg_(aios|authid|backend_memory_contexts|config|file_settings|hba_file_rules|ident_file_mappings|"
    r"largeobject|replication_origin_status|shadow|shmem_allocations|shmem_allocations_numa|"
    r"statistic|statistic_ext_data|subscription|user_mapping)"
)
"""Relations of pg_catalog that PUBLIC may not read as a whole."""
_OPEN = re.compile(
    r"pg_(aggregate|am|amop|amproc|attrdef|attribute|auth_members|available_extension_versions|"
    r"available_extensions|cast|class|collation|constraint|conversion|cursors|database|"
    r"db_role_setting|default_acl|depend|description|enum|event_trigger|extension|"
    r"foreign_data_wrapper|foreign_server|foreign_table|group|index|indexes|inherits|init_privs|"
    r"language|largeobject_metadata|locks|matviews|namespace|opclass|operator|opfamily|"
    r"parameter_acl|partitioned_table|policies|policy|prepared_statements|prepared_xacts|proc|"
    r"publication|publication_namespace|publication_rel|publication_tables|range|replication_origin|"
    r"replication_slots|rewrite|roles|rules|seclabel|seclabels|sequence|sequences|settings|"
    r"shdepend|shdescription|shseclabel|stat_activity|stat_all_indexes|stat_all_tables|"
    r"stat_archiver|stat_bgwriter|stat_checkpointer|stat_database|stat_database_conflicts|"
    r"stat_gssapi|stat_io|stat_progress_analyze|stat_progress_basebackup|stat_progress_cluster|"
    r"stat_progress_copy|stat_progress_create_index|stat_progress_vacuum|stat_recovery_prefetch|"
    r"stat_replication|stat_replication_slots|stat_slru|stat_ssl|stat_subscription|"
    r"stat_subscription_stats|stat_sys_indexes|stat_sys_tables|stat_user_functions|stat_user_indexes|"
    r"stat_user_tables|stat_wal|stat_wal_receiver|stat_xact_all_tables|stat_xact_sys_tables|"
    r"stat_xact_user_functions|stat_xact_user_tables|statio_all_indexes|statio_all_sequences|"
    r"statio_all_tables|statio_sys_indexes|statio_sys_sequences|statio_sys_tables|statio_user_indexes|"
    r"statio_user_sequences|statio_user_tables|statistic_ext|stats|stats_ext|stats_ext_exprs|"
    r"subscription_rel|tables|tablespace|timezone_abbrevs|timezone_names|transform|trigger|"
    r"ts_config|ts_config_map|ts_dict|ts_parser|ts_template|type|user|user_mappings|views|"
    r"wait_events)"
)
"""The other relations of pg_catalog, of releases 15 to 18."""
_EXTENSIONS = re.compile(r"pg_(stat_statements(_info)?|buffercache|stat_monitor|stat_kcache)")
"""Well-known relations of extensions, which define the privileges on them."""
_SYSTEM_COLUMNS = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}


@dataclass(slots=True)
class Needs:
    """Privileges that a role needs."""

    schema: str
    """The schema of every relation that is named without one."""
    columns: dict[RelationName, set[str]] = field(default_factory=dict)
    """Columns that certainly belong to the relation."""
    qualified: dict[RelationName, set[str]] = field(default_factory=dict)
    """Names qualified by the relation: a column, or a function of the whole row."""
    possible: dict[RelationName, set[str]] = field(default_factory=dict)
    """Unqualified names: a column of the relation, or of another source or result of the statement."""
    whole: dict[RelationName, str] = field(default_factory=dict)
    """Relations of which every column is needed, and why."""
    schemas: set[str] = field(default_factory=set)
    catalogs: set[str] = field(default_factory=set)
    """Relations of PostgreSQL and of extensions, on which nothing is granted."""
    roles: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    computed: set[str] = field(default_factory=set)
    """Functions and types that read a relation whose name the query computes."""

    def relation(self, node: Mapping[str, Any]) -> RelationName | None:
        """The relation of a RangeVar; None if nothing is granted on it."""
        schema, name = node.get("schemaname"), str(node.get("relname"))
        if is_system(schema) if schema else any(of.fullmatch(name) for of in (_OPEN, CLOSED, _EXTENSIONS)):
            self.catalogs.add(name)
            return None
        target = (str(schema) if schema else self.schema, name)
        self.columns.setdefault(target, set())
        self.schemas.add(target[0])
        return target

    def read(self, relation: RelationName, column: str, names: dict[RelationName, set[str]]) -> None:
        """Add `column` to `names`, which is one of `columns`, `qualified` and `possible`."""
        if column in _SYSTEM_COLUMNS:
            self.read_all(relation, f"the system column {column} cannot be granted")
        else:
            names.setdefault(relation, set()).add(column)

    def read_all(self, relation: RelationName, why: str) -> None:
        self.whole.setdefault(relation, why)


def is_system(schema: str) -> bool:
    """Whether `schema` is one of PostgreSQL's own, which every role may use or no role is granted."""
    return schema == "information_schema" or schema.startswith("pg_")
