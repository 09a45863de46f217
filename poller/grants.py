"""The least privileges that a role needs to run queries, by their parse trees and their `requires`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from poller.parsed import identifier, nodes, output_name, read_relations, statement
from poller.query import QueryDefinition

Relation = tuple[str, str]
"""Schema and name."""

_CATALOGS = {"pg_catalog", "information_schema"}
_SYSTEM_COLUMNS = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}


@dataclass(slots=True)
class Needs:
    """What a role must be granted."""

    schema: str
    """The schema of every relation that is named without one."""
    columns: dict[Relation, set[str]] = field(default_factory=dict)
    """Columns to read, by relation."""
    whole: dict[Relation, str] = field(default_factory=dict)
    """Relations of which every column is needed, and why."""
    schemas: set[str] = field(default_factory=set)
    catalogs: set[str] = field(default_factory=set)
    """PostgreSQL's own relations, which take no grant on a table."""
    roles: set[str] = field(default_factory=set)

    def relation(self, node: Mapping[str, Any]) -> Relation | None:
        """The relation of a RangeVar; None if it is one of PostgreSQL's own."""
        schema, name = node.get("schemaname"), str(node.get("relname"))
        if schema in _CATALOGS or (schema is None and name.startswith("pg_")):
            self.catalogs.add(name)
            return None
        found = (str(schema) if schema else self.schema, name)
        self.columns.setdefault(found, set())
        self.schemas.add(found[0])
        return found

    def read(self, relation: Relation, column: str) -> None:
        if column in _SYSTEM_COLUMNS:
            self.read_all(relation, f"the system column {column} cannot be granted")
        else:
            self.columns[relation].add(column)

    def read_all(self, relation: Relation, why: str) -> None:
        self.whole.setdefault(relation, why)


def needs_of(queries: Iterable[QueryDefinition], schema: str) -> Needs:
    """What a role needs to run `queries`; relations without a schema are in `schema`.

    A column without its table's name in a statement over several tables cannot be resolved without a
    database; then every column of these tables is needed, and `whole` says so.
    """
    needs = Needs(schema)
    for query in queries:
        required: dict[Relation, set[str]] = {}
        for name, listed in query.requires.columns.items():
            if relation := needs.relation(_named(name)):
                required[relation] = set(listed)
                needs.columns[relation] |= set(listed)
        needs.roles |= set(query.requires.member_of)
        for sql in [query.sql, *([query.estimate.sql] if query.estimate else [])]:
            _Statement(needs, required).read(sql)
    for relation, columns in needs.columns.items():
        if not columns:
            needs.read_all(relation, "its rows are counted; name a column of it under requires")
    return needs


def to_sql(needs: Needs, role: str) -> str:
    """The GRANTs as a script for psql, sorted, each once."""
    to = f"TO {identifier(role)};"
    lines = [f"GRANT USAGE ON SCHEMA {identifier(schema)} {to}" for schema in sorted(needs.schemas)]
    for relation in sorted(needs.columns):
        full = ".".join(map(identifier, relation))
        if why := needs.whole.get(relation):
            lines += [f"-- All columns, because {_comment(why)}.", f"GRANT SELECT ON {full} {to}"]
        else:
            columns = ", ".join(identifier(column) for column in sorted(needs.columns[relation]))
            lines.append(f"GRANT SELECT ({columns}) ON {full} {to}")
    lines += [f"GRANT {identifier(member)} {to}" for member in sorted(needs.roles)]
    if needs.catalogs:
        catalogs = ", ".join(map(_comment, sorted(needs.catalogs)))
        lines.append(f"-- Not granted, because they are PostgreSQL's or an extension's own: {catalogs}.")
    return "".join(f"{line}\n" for line in lines)


@dataclass(slots=True)
class _Item:
    """One entry of FROM."""

    alias: str
    relation: Relation | None = None
    columns: frozenset[str] | None = None
    """The columns of anything that is not a relation of its own; None: unknown."""


@dataclass(slots=True)
class _Scope:
    items: list[_Item]
    outer: _Scope | None

    def levels(self) -> Iterator[list[_Item]]:
        scope: _Scope | None = self
        while scope is not None:
            yield scope.items
            scope = scope.outer


_Columns = frozenset[str] | None


class _Statement:
    """Resolves the columns of one statement as the server does: the innermost FROM comes first."""

    def __init__(self, needs: Needs, required: Mapping[Relation, set[str]]) -> None:
        self._needs = needs
        self._required = required

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
        """Schemas of functions, types, operators and of tables that are named by a text."""
        names = [call.get("funcname", []) for call in nodes(tree, "FuncCall")]
        names += [one.get("name", []) for one in nodes(tree, "A_Expr")]
        for cast in nodes(tree, "TypeCast"):
            kind = cast["typeName"].get("names", [])
            names.append(kind)
            text = cast["arg"].get("A_Const", {}).get("sval", {}).get("sval")
            if text and kind and kind[-1].get("String", {}).get("sval") == "regclass":
                node = _named(text)
                names.append(
                    [{"String": {"sval": node[key]}} for key in ("schemaname", "relname") if key in node]
                )
        for parts in names:
            if len(parts) > 1 and "String" in parts[-2]:
                self._needs.schemas.add(str(parts[-2]["String"].get("sval")))
        self._needs.schemas -= _CATALOGS

    def _select(self, body: Any, outer: _Scope | None, ctes: dict[str, _Columns]) -> _Columns:
        """Resolve one SELECT and return the names of its columns; None if they are unknown."""
        ctes = dict(ctes)
        with_clause = body.get("withClause", {})
        for entry in with_clause.get("ctes", []):
            cte = entry["CommonTableExpr"]
            named = _strings(cte.get("aliascolnames", []))
            query = cte["ctequery"].get("SelectStmt", {})
            if with_clause.get("recursive"):
                ctes[cte["ctename"]] = frozenset(named) if named else _result(query)
            columns = self._select(query, outer, ctes)
            ctes[cte["ctename"]] = frozenset(named) if named else columns
        if "larg" in body:
            self._select(body["larg"], outer, ctes)
            self._select(body["rarg"], outer, ctes)
            return _result(body)
        scope = _Scope([], outer)
        for item in body.get("fromClause", []):
            self._from(item, scope, ctes)
        targets = [one["ResTarget"] for one in body.get("targetList", [])]
        names = [output_name(target) for target in targets]
        for key, clause in body.items():
            if key in ("fromClause", "withClause"):
                continue
            # ORDER BY and GROUP BY may name a column of the result.
            by_name = key in ("sortClause", "groupClause")
            wanted = [one for one in clause if _bare_name(one) not in names] if by_name else clause
            self._expression(wanted, scope, ctes)
        return _result(body)

    def _from(self, item: Any, scope: _Scope, ctes: dict[str, _Columns]) -> list[_Item]:
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
                for one in side if join.get("isNatural") else ():
                    self._all_of(one, "it is in a NATURAL JOIN")
                for one in side if "alias" in join else ():
                    self._all_of(one, "the join has an alias")
            self._expression(join.get("quals"), scope, ctes)
        elif query := item.get("RangeSubselect"):
            around = scope if query.get("lateral") else scope.outer
            columns = self._select(query["subquery"].get("SelectStmt", {}), around, ctes)
            scope.items.append(_derived(query, columns))
        else:
            for call in item.values():
                self._expression({key: one for key, one in call.items() if key != "alias"}, scope, ctes)
                named = [str(one["ColumnDef"].get("colname")) for one in call.get("coldeflist", [])]
                scope.items.append(_derived(call, frozenset(named) if named else None))
        return scope.items[first:]

    def _table(self, table: Mapping[str, Any], ctes: dict[str, _Columns]) -> _Item:
        name = str(table.get("relname"))
        alias = table.get("alias", {})
        called = str(alias.get("aliasname", name))
        if "schemaname" not in table and name in ctes:
            return _derived(table, ctes[name], called)
        relation = self._needs.relation(table)
        if relation and alias.get("colnames"):
            self._needs.read_all(relation, "its columns are renamed by an alias")
        return _Item(called, relation)

    def _expression(self, tree: Any, scope: _Scope, ctes: dict[str, _Columns]) -> None:
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

    def _column(self, fields: list[Any], scope: _Scope) -> None:
        names = _strings(fields)
        star = "A_Star" in fields[-1]
        if star and not names:
            for item in scope.items:
                self._all_of(item, "of SELECT *")
        elif star or len(names) > 1:
            alias = names[-1] if star else names[-2]
            named = [one for level in scope.levels() for one in level if one.alias == alias][:1]
            for item in named:
                if star:
                    self._all_of(item, f"of {alias}.*")
                elif item.relation:
                    self._needs.read(item.relation, names[-1])
        else:
            self._unqualified(names[0], scope.levels())

    def _all_of(self, item: _Item, why: str) -> None:
        if item.relation:
            self._needs.read_all(item.relation, why)

    def _unqualified(self, name: str, levels: Iterable[list[_Item]]) -> None:
        for items in levels:
            if any(item.columns is not None and name in item.columns for item in items):
                return
            for item in items:
                if item.alias == name:  # the whole row, or the one column of a function
                    self._all_of(item, f"{name} is its whole row")
                    return
            tables = [item.relation for item in items if item.relation]
            declared = [one for one in tables if name in self._required.get(one, ())]
            others = [item for item in items if item.relation is None and item.columns is None]
            if len(declared) == 1 or (len(tables) == 1 and not others):
                self._needs.read((declared or tables)[0], name)
                return
            for relation in tables:
                why = f"the column {name} may be of several tables; write TABLE.{name}"
                self._needs.read_all(relation, why)
            if tables or others:
                return


def _named(text: str) -> dict[str, Any]:
    """The RangeVar of a relation's name as SQL writes it."""
    found: dict[str, Any] = next(nodes(statement(f"SELECT FROM {text}"), "RangeVar"), {"relname": text})
    return found


def _result(body: dict[str, Any]) -> _Columns:
    """The names of the columns of a SELECT; None if they are unknown."""
    while "larg" in body:
        body = body["larg"]
    targets = [one["ResTarget"] for one in body.get("targetList", [])]
    stars = any("A_Star" in part for one in targets for part in _fields(one["val"]))
    return None if stars or not targets else frozenset(map(output_name, targets))


def _derived(node: Mapping[str, Any], columns: _Columns, called: str = "") -> _Item:
    """An entry of FROM that is not a table, under the names that its alias gives."""
    alias = node.get("alias", {})
    named = _strings(alias.get("colnames", []))
    # An alias may name the first columns only.
    known = frozenset(named) | (columns or frozenset()) if named or columns is not None else None
    return _Item(str(alias.get("aliasname", called)), None, known)


def _bare_name(clause: Any) -> str:
    node = clause.get("SortBy", {}).get("node", clause)
    names = _strings(_fields(node))
    return names[0] if len(names) == 1 else ""


def _fields(node: Any) -> list[Any]:
    fields: list[Any] = node.get("ColumnRef", {}).get("fields", [])
    return fields


def _strings(parts: list[Any]) -> list[str]:
    return [str(part["String"].get("sval", "")) for part in parts if "String" in part]


def _comment(text: str) -> str:
    """`text` on one line, so that nothing of it leaves the comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
