"""The poller's own SQL uses only PostgreSQL's own objects, even if others have the same names."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pgparse
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from poller.cli.app import app
from poller.postgres.inspect_relations import known_query, names_query
from poller.postgres.replay_lag import lag_query
from poller.postgres.server_facts import facts_query
from poller.postgres.sql_text import literal
from tests.bed.definitions import a_query
from tests.bed.postgres import Database
from tests.bed.proxy import Proxy


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Restore the log: the commands run in this process and configure it."""
    root, own = logging.getLogger(), logging.getLogger("poller")
    before = list(root.handlers), root.level, own.level
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


pytestmark = pytest.mark.every_version

QUERIES = """\
queries:
  - name: letters
    sql: SELECT pg_catalog.abs(size) AS n FROM public.letters
    requires: {columns: {letters: [size]}, member_of: [pg_monitor], role: any}
    estimate: {sql: SELECT 1 AS n FROM public.letters, above_cost: 1000000}
    metrics: [{name: letters, description: Letters., unit: "1", value_column: n}]
  - name: alone
    sql: SELECT size AS n FROM public.letters
    snapshot: false
    metrics: [{name: alone, description: Letters., unit: "1", value_column: n}]
"""
CASES = """\
schema: CREATE TABLE public.letters (size int)
cases:
  - name: one letter
    query: letters
    rows: {letters: "size\\n5\\n"}
    expect: [{metric: letters, value: 5}]
"""
LETTERS = """\
CREATE TYPE public.mood AS ENUM ('glad', 'sad');
CREATE TABLE public.letters (size int, mood public.mood, at timestamptz);
INSERT INTO public.letters VALUES (5, 'glad', now());
ANALYZE public.letters"""
THE_USERS = re.compile(r"FROM public\.|public\.nowhere|CREATE TABLE|COPY ")
"""Texts that only statements of query files, cases and drafts contain."""
EXPECTED = [
    "json_object_agg(wanted.name", "pg_stat_activity WHERE state", "member of ", "ts_stat", "set_config(",
    "open_schemas", "enumsortorder", "pg_table_is_visible", "pg_partition_root", "most_common_vals",
    "relispartition,\n    nspname", "aggtransfn", "SAVEPOINT tick", "BEGIN ISOLATION LEVEL READ COMMITTED",
]  # fmt: skip
"""A part of each statement that the poller can send: the test must observe all of them."""
COMMANDS = [
    ["poll"],
    ["doctor"],
    ["try", "SELECT size, mood FROM public.letters"],
    ["check", "--database"],
    ["check", "--database", "missing.yaml"],
    ["new", "--table", "letters", "--aggregate", "size"],
    ["new", "--table", "public.letter", "--aggregate", "size"],
    ["new", "--table", "pg_class", "--aggregate", "size"],
]


class Sent:
    """Runs commands and records their statements and the server's errors."""

    def __init__(self, proxy: Proxy, dsn: str) -> None:
        self._dsn = proxy.dsn(dsn)
        self._traffic = proxy.record = []

    def run(self, *arguments: str, **more: str) -> str:
        environ = {
            "POLLER_DATABASE_URL": self._dsn,
            "POLLER_QUERIES": "mine.yaml",
            "POLLER_MAX_ACTIVE_BACKENDS": "1000",
            **more,
        }
        result = CliRunner().invoke(app, list(arguments), env=environ)
        return f"{result.output}\n{result.exception}"

    def run_all(self) -> dict[str, str]:
        """Run every command that reads a database in use; return the output of each."""
        printed = {" ".join(command): self.run(*command) for command in COMMANDS}
        return printed | {"strict poll": self.run("poll", POLLER_STRICT="true")}

    def test_cases(self) -> str:
        return self.run("test", "--database", self._dsn, "mine.yaml", POLLER_DATABASE_URL="")

    @property
    def own(self) -> list[str]:
        """Return the poller's own statements, each once."""
        sent = [sql for up, _ in self._traffic for sql in _statements(bytes(up))]
        return sorted({sql for sql in sent if not THE_USERS.search(sql)})

    @property
    def errors(self) -> str:
        return "\n".join(bytes(down).decode(errors="replace") for _, down in self._traffic)


def _statements(messages: bytes) -> Iterator[str]:
    """Yield the SQL of Parse messages and simple queries in a client's messages."""
    at = 0
    while at + 8 <= len(messages):
        kind = messages[at : at + 1]
        if kind == b"\0":  # a packet without a type: start, cancel, request for encryption
            at += struct.unpack_from("!I", messages, at)[0]
            continue
        (length,) = struct.unpack_from("!I", messages, at + 1)
        body = messages[at + 5 : at + 1 + length]
        if kind in b"PQ":
            yield body.split(b"\0")[1 if kind == b"P" else 0].decode()
        at += 1 + length


@pytest.fixture
def sent(
    database: Database,
    make_proxy: Callable[[int], Proxy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Sent:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(QUERIES)
    Path("mine.test.yaml").write_text(CASES)
    Path("missing.yaml").write_text(QUERIES.replace("public.letters", "public.nowhere"))
    port = int(str(conninfo_to_dict(database.primary_dsn)["port"]))
    return Sent(make_proxy(port), database.primary_dsn)


def unqualified(sql: str) -> list[str]:
    """Return every name in `sql` that depends on search_path, including names in SQL texts for functions."""
    tree = pgparse.parse(re.sub(r"\$\d", "NULL", sql))
    problems: list[str] = []
    ctes = {node["ctename"] for node in _nodes(tree, "CommonTableExpr")}
    names = [("function", node["funcname"]) for node in _nodes(tree, "FuncCall")]
    names += [("type", node["names"]) for node in _nodes(tree, "TypeName") if "names" in node]
    for node in _nodes(tree, "A_Expr"):
        plain = node["kind"] in ("AEXPR_OP", "AEXPR_OP_ANY", "AEXPR_OP_ALL")
        names.append(("operator" if plain else node["kind"], node["name"] if plain else []))
    for node in _nodes(tree, "SubLink"):
        if node["subLinkType"] in ("ANY_SUBLINK", "ALL_SUBLINK"):
            names.append(("IN", node.get("operName", [])))
    for description, parts in names:
        words = [part["String"]["sval"] for part in parts]
        if len(words) != 2 or words[0] != "pg_catalog":
            problems.append(f"{description} {'.'.join(words)}")
    problems += [
        f"relation {node['relname']}"
        for node in _nodes(tree, "RangeVar")
        if node.get("schemaname") != "pg_catalog" and node["relname"] not in ctes
    ]
    problems += ["CASE with an operand" for node in _nodes(tree, "CaseExpr") if "arg" in node]
    problems += [
        "USING" for node in _nodes(tree, "JoinExpr") if "usingClause" in node or node.get("isNatural")
    ]
    problems += ["COLLATE" for _ in _nodes(tree, "CollateClause")]
    for node in _nodes(tree, "TypeCast"):
        kind = node["typeName"]["names"][-1]["String"]["sval"]
        text = node["arg"].get("A_Const", {}).get("sval", {}).get("sval", ".")
        if kind in ("regclass", "regtype", "regproc", "regprocedure") and "." not in text:
            problems.append(f"name {text}")
    for node in _nodes(tree, "A_Const"):
        text = node.get("sval", {}).get("sval", "")
        if text.startswith("SELECT "):
            problems += unqualified(text)
    return problems


def _nodes(tree: Any, kind: str) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if kind in node and isinstance(node[kind], dict):
                yield node[kind]
            # A few nodes are stored under the name of their field, without the name of their kind.
            if kind == "TypeName" and isinstance(node.get("typeName"), dict):
                yield node["typeName"]
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT concat_ws(' ', 'a')", "function concat_ws"),
        ("SELECT pg_catalog.now() - pg_catalog.now()", "operator -"),
        ("SELECT 'x'::text", "type text"),
        ("SELECT 'x'::public.text", "type public.text"),
        ("SELECT 1 IN (1, 2)", "AEXPR_IN "),
        ("SELECT 1 IN (SELECT 1)", "IN "),
        ("SELECT nullif(1, 2)", "AEXPR_NULLIF "),
        ("SELECT 1 IS DISTINCT FROM 2", "AEXPR_DISTINCT "),
        ("SELECT 1 BETWEEN 0 AND 2", "AEXPR_BETWEEN "),
        ("SELECT CASE 1 WHEN 2 THEN 3 END", "CASE with an operand"),
        ("SELECT 'timestamptz'::pg_catalog.regtype", "name timestamptz"),
        ("SELECT oid FROM pg_class", "relation pg_class"),
        ("SELECT 1 FROM pg_catalog.ts_stat('SELECT f(1)')", "function f"),
    ],
)
def test_the_check_detects_each_kind_of_unqualified_name(sql: str, name: str) -> None:
    assert unqualified(sql) == [name]


def test_every_name_that_the_poller_sends_itself_is_qualified(database: Database, sent: Sent) -> None:
    assert "1 case: 1 ok" in sent.test_cases()
    database.execute(LETTERS)
    sent.run_all()
    assert [part for part in EXPECTED if not any(part in sql for sql in sent.own)] == []
    assert {sql: names for sql in sent.own if (names := unqualified(sql))} == {}


TRAP = "LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'HIJACKED %', pg_catalog.current_query(); END$$"
PSEUDO = """\
SELECT oid FROM pg_type WHERE typtype = 'p' AND typname NOT LIKE 'any%' OR typname IN ('any', 'anyrange')"""


def _plant(dsn: str, own: list[str]) -> dict[str, int]:
    """Create in `public` a namesake of each object in `own`; return the number of each kind.

    Functions and operators have exactly PostgreSQL's signatures. The database's search_path has `public`
    first, so that unqualified names resolve to the new objects.
    """
    trees = [pgparse.parse(re.sub(r"\$\d", "NULL", sql)) for sql in own]
    functions = {node["funcname"][-1]["String"]["sval"] for node in _nodes(trees, "FuncCall")}
    operators = {node["name"][-1]["String"]["sval"] for node in _nodes(trees, "A_Expr")}
    operators |= {"=", "<>", "<", ">", "<=", ">="}  # IN, BETWEEN and NULLIF use these
    types = {node["names"][-1]["String"]["sval"] for node in _nodes(trees, "TypeName") if "names" in node} - {
        "char"
    }
    relations = {
        node["relname"] for node in _nodes(trees, "RangeVar") if node.get("schemaname") == "pg_catalog"
    }
    planted = dict.fromkeys(("functions", "operators", "types", "relations"), 0)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET search_path = pg_catalog")

        def create(kind: str, *statements: str) -> None:
            try:
                with connection.transaction():
                    for statement in statements:
                        connection.execute(statement.encode())
                planted[kind] += 1
            except psycopg.Error:
                pass  # plpgsql has no function with such arguments, or the operator is built into the grammar

        signatures = connection.execute(
            "SELECT proname, pg_get_function_identity_arguments(p.oid) FROM pg_proc p "
            "WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND proname = ANY (%s)",
            (sorted(functions),),
        ).fetchall()
        # An exact match takes precedence over VARIADIC "any" and aggregates.
        signatures += [
            ("concat_ws", "text, text, text, text"),
            ("concat", "text, name, text, name"),
            ("json_agg", "name"),
            ("json_agg", "json"),
            ("count", ""),
            ("min", "text"),
            ("json_build_array", "json, json"),
            ("json_build_object", ", ".join(["text, boolean"] * 2)),
        ]
        for name, arguments in signatures:
            create("functions", f'CREATE FUNCTION public."{name}"({arguments}) RETURNS text {TRAP}')
        for name, left, right in connection.execute(
            "SELECT oprname, oprleft::regtype, oprright::regtype FROM pg_operator "
            "WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft <> 0 AND oprname = ANY (%s)",
            (sorted(operators),),
        ).fetchall():
            trap = f'public.trap_{planted["operators"]}("{left}", "{right}")'.replace('"', "")
            create(
                "operators",
                f"CREATE FUNCTION {trap} RETURNS boolean {TRAP}",
                f"CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, "
                f"FUNCTION = {trap.partition('(')[0]})",
            )
        for name in types:
            create("types", f'CREATE TYPE public."{name}" AS ENUM ()')
        connection.execute(f"CREATE FUNCTION public.trap() RETURNS boolean {TRAP}".encode())
        for name in relations:
            create(
                "relations",
                f'CREATE VIEW public."{name}" AS SELECT * FROM pg_catalog."{name}" WHERE public.trap()',
            )
    return planted


def test_the_pollers_own_sql_never_uses_other_objects_in_the_search_path(
    database: Database, sent: Sent
) -> None:
    database.execute(LETTERS)
    sent.run_all()
    planted = _plant(database.primary_dsn, sent.own)
    assert all(count > 10 for kind, count in planted.items() if kind != "types"), planted
    assert planted["types"] > 3
    database.execute(f"ALTER DATABASE {database.name} SET search_path = public, pg_catalog")
    with pytest.raises(psycopg.errors.RaiseException, match="HIJACKED"):
        database.execute("SELECT relname FROM pg_class")

    outputs = sent.run_all() | {"test": sent.test_cases()}
    hijacked = re.findall(r"HIJACKED ([^\0]*)", sent.errors)
    assert [sql for sql in hijacked if not THE_USERS.search(sql)] == []
    # The commands did not merely fail: each completed.
    assert re.search("letters .* ok", outputs["poll"]), outputs
    assert "excess_privilege" in outputs["strict poll"], outputs
    assert "lag" in outputs["doctor"], outputs
    assert "contains the relation" in outputs["test"], outputs


HOSTILE = "a'b\\'); SELECT 1/0; --\\"


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_a_name_is_quoted_correctly_with_any_standard_conforming_strings(
    database: Database, conforming: str
) -> None:
    query = a_query(requires={"columns": {f'"{HOSTILE}"': ["n"]}, "member_of": [HOSTILE]})
    database.execute('CREATE TABLE "{}" (n int)'.format(HOSTILE.replace('"', '""')))
    with psycopg.connect(database.primary_dsn) as connection:
        connection.execute(f"SET standard_conforming_strings = {conforming}".encode())
        connection.execute("SET escape_string_warning = off")

        def fetch(sql: str) -> Any:
            ((value,),) = connection.execute(sql.encode()).fetchall()
            return value

        assert fetch(f"SELECT {literal(HOSTILE)}") == HOSTILE
        assert fetch(facts_query([query], count_active=True, privileges=True))["columns"] == {
            f'"{HOSTILE}"': [["n"], []]
        }
        ((_, name, *_),) = fetch(known_query([23], [("public", HOSTILE)]))["relations"]
        assert name == HOSTILE
        assert fetch(lag_query())["standby"] is False
        assert [HOSTILE, f'public."{HOSTILE}"', True] in fetch(names_query())
