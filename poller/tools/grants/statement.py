"""Resolution of the names in the statements of queries to the privileges that they need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from poller.config.queries.sql_ast import nodes, output_name, read_relations, statement
from poller.config.queries.sql_functions import calls
from poller.model.query import QueryDefinition
from poller.tools.grants.needs import Needs, RelationName, is_system

_BY_NAME = re.compile(
    r"to_reg(class|type|proc|procedure|oper|operator|collation)|(curr|next|set)val"
    r"|pg_get_(serial_sequence|viewdef|replica_identity_index)|row_security_active"
    r"|pg_(relation|table|indexes|total_relation)_size|pg_relation_file(node|path)|pg_relation_is_\w+|pg_relpages"
    r"|pg_partition_(tree|ancestors|root)|pg_sequence_last_value|pg_(column_is_updatable|freespace|visibility\w*)"
    r"|pg_index_(column_)?has_property|pgstat\w+|pgrowlocks|bt_index_check|gin_index_check|verify_heapam"
)
"""Functions whose first argument is the name of a relation, function, operator or type."""
_HAS_PRIVILEGE = re.compile(r"has_(table|sequence|any_column|column|function|type)_privilege")
"""Functions with such a name before the last argument: a privilege, for a column also after the column."""
_NAMING_TYPES = {
    "regclass",
    "regtype",
    "regproc",
    "regprocedure",
    "regcollation",
    "regconfig",
    "regdictionary",
}
_QUALIFIED = ("funcname", "name", "names", "collname", "operName", "useOp", "method")
"""Where a parse tree has the names of functions, operators, types, collations and sampling methods."""
_SCHEMA = re.compile(r'"((?:[^"]|"")*)"|([^",\s]+)')
_Columns = frozenset[str]


def needs_of(queries: Iterable[QueryDefinition], schema: str) -> Needs:
    """Return the privileges that a role needs to run `queries`; relations without a schema are in `schema`.

    In the SQL of a query with a search_path, they are in its first schema.
    The result is a superset: without a database a name may be a column of several tables, and is then
    in `possible` of each.
    """
    needs = Needs(schema)
    for query in queries:
        for name, listed in query.requires.columns.items():
            if relation := needs.relation(_named(name)):
                needs.columns[relation] |= set(listed)
        needs.roles |= set(query.requires.member_of)
        needs.schema = _first_schema(query.settings.get("search_path", "")) or schema
        for sql in [query.sql, *([query.estimate.sql] if query.estimate else [])]:
            _Statement(needs).read(sql)
        needs.schema = schema
    for relation, columns in needs.columns.items():
        if not any(relation in names for names in (needs.qualified, needs.possible)) and not columns:
            needs.read_all(relation, "its rows are counted; name a column of it under requires")
    return needs


def _first_schema(search_path: str) -> str | None:
    """Return the first schema of a search_path that can contain tables."""
    names = (quoted.replace('""', '"') or bare.lower() for quoted, bare in _SCHEMA.findall(search_path))
    return next((name for name in names if name != "$user" and not is_system(name)), None)


@dataclass(slots=True)
class _FromEntry:
    """One entry of FROM."""

    alias: str
    relation: RelationName | None = None
    columns: frozenset[str] = frozenset()
    """Columns that this entry certainly has, if it is not a relation."""


@dataclass(slots=True)
class _StatementScope:
    items: list[_FromEntry]
    outer: _StatementScope | None

    def levels(self) -> Iterator[list[_FromEntry]]:
        scope: _StatementScope | None = self
        while scope is not None:
            yield scope.items
            scope = scope.outer


class _Statement:
    """Resolution of each name in a statement to every relation that may have it as a column."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs

    def read(self, sql: str) -> None:
        tree = statement(sql)
        self._schemas(tree)
        try:
            self._select(tree.get("SelectStmt", {}), None, {})
        except RecursionError:
            for schema, name in read_relations(sql):
                if relation := self._needs.relation({"schemaname": schema, "relname": name}):
                    self._needs.read_all(relation, "the statement is nested too deeply")

    def _schemas(self, tree: Any) -> None:
        """Schemas of functions, types, operators and collations, and of relations that a text names."""
        names = [name for key in _QUALIFIED for name in nodes(tree, key) if isinstance(name, list)]
        schemas = {parts[-2] for parts in map(_strings, names) if len(parts) > 1}
        for reader, expression in _naming_expressions(tree):
            texts = _constants(expression)
            if texts is None:
                self._needs.computed.add(reader)
            schemas |= {str(schema) for text in texts or () if (schema := _named(text).get("schemaname"))}
        self._needs.schemas |= {schema for schema in schemas if not is_system(schema)}
        self._needs.functions |= {
            f"{call.schema}.{call.name}" if call.schema else call.name
            for call in calls(tree)
            if not call.of_row and (call.schema is None or call.schema != "pg_catalog")
        }

    def _select(self, body: Any, outer: _StatementScope | None, ctes: dict[str, _Columns]) -> _Columns:
        """Read one SELECT and return the names that its columns certainly have."""
        ctes = dict(ctes)
        with_clause = body.get("withClause", {})
        entries = [entry["CommonTableExpr"] for entry in with_clause.get("ctes", [])]
        results = {
            cte["ctename"]: frozenset(_strings(cte.get("aliascolnames", [])))
            or _result(cte["ctequery"].get("SelectStmt", {}))
            for cte in entries
        }
        if with_clause.get("recursive"):
            ctes.update(results)
        for cte in entries:
            self._select(cte["ctequery"].get("SelectStmt", {}), outer, ctes)
            ctes[cte["ctename"]] = results[cte["ctename"]]
        if "larg" in body:
            self._select(body["larg"], outer, ctes)
            self._select(body["rarg"], outer, ctes)
            self._expression(
                [body.get("limitCount"), body.get("limitOffset")], _StatementScope([], outer), ctes
            )
            return _result(body)
        scope = _StatementScope([], outer)
        for item in body.get("fromClause", []):
            self._from(item, scope, ctes)
        names = [output_name(element["ResTarget"]) for element in body.get("targetList", [])]
        for key, clause in body.items():
            if key in ("sortClause", "distinctClause", "groupClause"):
                for element in clause:
                    self._by_name(element, key == "groupClause", names, scope, ctes)
            elif key not in ("fromClause", "withClause"):
                self._expression(clause, scope, ctes)
        return _result(body)

    def _by_name(
        self,
        clause: Any,
        input_first: bool,
        names: list[str],
        scope: _StatementScope,
        ctes: dict[str, _Columns],
    ) -> None:
        """One entry of GROUP BY, ORDER BY or DISTINCT ON, which may name a column of the result."""
        used = {name for column in nodes(clause, "ColumnRef") for name in _strings(column["fields"])[-1:]}
        if not input_first and _bare_name(clause) in set(names) - {""}:
            return
        if "" in names or not used.isdisjoint(names):
            scope = _StatementScope([*scope.items, _FromEntry("")], scope.outer)
        self._expression(clause, scope, ctes)

    def _from(self, item: Any, scope: _StatementScope, ctes: dict[str, _Columns]) -> list[_FromEntry]:
        """Add an entry of FROM to `scope`; returns what it added."""
        first = len(scope.items)
        if sampled := item.get("RangeTableSample"):
            self._from(sampled["relation"], scope, ctes)
            self._expression(sampled.get("args"), scope, ctes)
        elif table := item.get("RangeVar"):
            scope.items.append(self._table(table, ctes))
        elif join := item.get("JoinExpr"):
            sides = [self._from(join[side], scope, ctes) for side in ("larg", "rarg")]
            for side in sides:
                for name in _strings(join.get("usingClause", [])):
                    self._unqualified(name, [side])
                for element in side if join.get("isNatural") else ():
                    self._all_of(element, "it is in a NATURAL JOIN")
                for element in side if "alias" in join else ():
                    self._all_of(element, "the join has an alias")
            self._expression(join.get("quals"), _StatementScope(scope.items[first:], scope.outer), ctes)
            if "alias" in join:  # hides the names inside
                scope.items[first:] = [_derived(join)]
            elif merged := join.get("join_using_alias"):
                scope.items.append(_FromEntry(str(merged["aliasname"])))
        elif query := item.get("RangeSubselect"):
            around = scope if query.get("lateral") else scope.outer
            columns = self._select(query["subquery"].get("SelectStmt", {}), around, ctes)
            scope.items.append(_derived(query, columns))
        else:
            for call in item.values():
                self._expression(
                    {key: element for key, element in call.items() if key != "alias"}, scope, ctes
                )
                named = frozenset(
                    str(element["ColumnDef"].get("colname")) for element in call.get("coldeflist", [])
                )
                scope.items.append(_derived(call, named))
        return scope.items[first:]

    def _table(self, table: Mapping[str, Any], ctes: dict[str, _Columns]) -> _FromEntry:
        name = str(table.get("relname"))
        alias = table.get("alias", {})
        called = str(alias.get("aliasname", name))
        if "schemaname" not in table and name in ctes:
            return _derived(table, ctes[name], called)
        relation = self._needs.relation(table)
        if relation and alias.get("colnames"):
            self._needs.read_all(relation, "its columns are renamed by an alias")
        return _FromEntry(called, relation)

    def _expression(self, tree: Any, scope: _StatementScope, ctes: dict[str, _Columns]) -> None:
        pending = [tree]
        while pending:
            node = pending.pop()
            if isinstance(node, list):
                pending.extend(node)
            elif isinstance(node, dict):
                for key, value in node.items():
                    if key == "SelectStmt":
                        self._select(value, scope, ctes)
                    elif key == "ColumnRef":
                        self._column(value.get("fields", []), scope)
                    else:
                        pending.append(value)

    def _column(self, fields: list[Any], scope: _StatementScope) -> None:
        names = _strings(fields)
        star = "A_Star" in fields[-1]
        if star and not names:
            for item in scope.items:
                self._all_of(item, "of SELECT *")
        elif star or len(names) > 1:
            *schema, alias = names if star else names[:-1]
            target = self._find(schema[-1:], alias, scope)
            if target and star:
                self._all_of(target, f"of {alias}.*")
            elif target and target.relation:
                self._needs.read(target.relation, names[-1], self._needs.qualified)
        else:
            self._unqualified(names[0], list(scope.levels()))

    def _find(self, schema: list[str], alias: str, scope: _StatementScope) -> _FromEntry | None:
        """The innermost entry of FROM that `alias`, or `schema` and `alias`, is the name of."""
        items = [item for level in scope.levels() for item in level]
        named = [item for item in items if schema and item.relation == (schema[0], alias)]
        return next(iter(named or [item for item in items if item.alias == alias]), None)

    def _all_of(self, item: _FromEntry, why: str) -> None:
        if item.relation:
            self._needs.read_all(item.relation, why)

    def _unqualified(self, name: str, levels: list[list[_FromEntry]]) -> None:
        only = len([item for items in levels for item in items]) == 1
        for items in levels:
            if any(name in item.columns for item in items):
                return
            for item in items:
                if item.relation and item.alias == name:
                    self._all_of(item, f"{name} is its whole row")
                elif item.relation:
                    self._needs.read(
                        item.relation, name, self._needs.columns if only else self._needs.possible
                    )


def _naming_expressions(tree: Any) -> Iterator[tuple[str, Any]]:
    """Expressions that PostgreSQL reads as names of relations, functions or types, and what reads them."""
    for call in nodes(tree, "FuncCall"):
        name = "".join(_strings(call.get("funcname", []))[-1:])
        args = call.get("args", [])
        if _HAS_PRIVILEGE.fullmatch(name):
            args = args[-3 if name == "has_column_privilege" else -2 :]
        elif not _BY_NAME.fullmatch(name):
            continue
        yield from ((name, expression) for expression in args[:1])
    for cast in nodes(tree, "TypeCast"):
        for name in _strings(cast["typeName"].get("names", []))[-1:]:
            if name in _NAMING_TYPES:
                yield name, cast["arg"]


def _constants(expression: Any) -> list[str] | None:
    """Return the constant texts of `expression` or of its array; None if it computes a text."""
    texts: list[str] = []
    pending = [expression]
    while pending:
        ((kind, node),) = pending.pop().items()
        if kind == "TypeCast":
            pending.append(node["arg"])
        elif kind == "A_ArrayExpr":
            pending += node.get("elements", [])
        elif kind == "A_Const":
            text = str(node.get("sval", {}).get("sval", ""))
            texts += _elements(text) if text.startswith("{") else [text]
        elif kind != "ColumnRef" or not "".join(_strings(node["fields"])[-1:]).endswith("id"):
            return None  # a column named oid or relid has no name to look up
    return texts


def _elements(array: str) -> Iterator[str]:
    """The elements of the text of an array; in a quoted one, a backslash escapes the next character."""
    for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|([^{},\s]+)', array):
        yield re.sub(r"\\(.)", r"\1", quoted) or bare


def _named(text: str) -> dict[str, Any]:
    """The RangeVar of a name as SQL writes it, without arguments and brackets after it."""
    name = re.split(r"[(\[]", text)[0]
    items = statement(f"SELECT FROM {name}").get("SelectStmt", {}).get("fromClause", [])
    target: dict[str, Any] = items[0].get("RangeVar", {}) if len(items) == 1 else {}
    return target or {"relname": text}


def _result(body: dict[str, Any]) -> _Columns:
    """The names that the columns of a SELECT certainly have."""
    while "larg" in body:
        body = body["larg"]
    return frozenset(output_name(element["ResTarget"]) for element in body.get("targetList", [])) - {""}


def _derived(node: Mapping[str, Any], columns: _Columns = frozenset(), called: str = "") -> _FromEntry:
    """An entry of FROM that is not a table, under the names that its alias gives."""
    alias = node.get("alias", {})
    # An alias renames the first columns, however many there are.
    return _FromEntry(
        str(alias.get("aliasname", called)), None, frozenset(_strings(alias.get("colnames", []))) or columns
    )


def _bare_name(clause: Any) -> str:
    node = clause.get("SortBy", {}).get("node", clause)
    names = _strings(_fields(node))
    return names[0] if len(names) == 1 else ""


def _fields(node: Any) -> list[Any]:
    fields: list[Any] = node.get("ColumnRef", {}).get("fields", [])
    return fields


def _strings(parts: list[Any]) -> list[str]:
    return [str(part["String"].get("sval", "")) for part in parts if "String" in part]
