"""Databases in other encodings than UTF-8: every character is correct, and a bad byte drops only its row."""

from __future__ import annotations

import json
import random
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from poller.cli.app import app
from poller.polling.poll import to_result
from poller.postgres.charset import UTF8, charset_of
from poller.postgres.replica import Replica
from poller.receiver.receiver import Receiver
from tests.bed.definitions import a_metric, a_query
from tests.bed.pgbouncer import PgBouncer
from tests.bed.postgres import Database, Site
from tests.bed.process import Process
from tests.bed.replica import a_replica

Start = Callable[..., Process]
SINGLE_BYTE = (
    *(f"LATIN{number}" for number in range(1, 11)),
    *(f"ISO_8859_{part}" for part in range(5, 9)),
    *(f"WIN{page}" for page in (866, 874, *range(1250, 1259))),
    "KOI8R", "KOI8U",
)  # fmt: skip
CODECS = {"WIN1252": "cp1252", "LATIN1": "latin1", "SQL_ASCII": "utf-8", "EUC_CN": "gb2312"}
WORDS = {
    "WIN1252": "Zürich€",
    "LATIN1": "Zürich",
    "SQL_ASCII": "Zürich",
    "EUC_CN": "北京",
    "EUC_JP": "東京①～",
}
"""A text in the encoding; Python's EUC_JP lacks its last two characters."""
BAD = {"WIN1252": b"a\x81b", "SQL_ASCII": b"M\xfcnchen", "EUC_CN": b"a\xaa\xa1b", "EUC_JP": b"a\xa9\xa1b"}
"""A text that the server accepts and cannot convert to UTF-8; LATIN1 has no such text."""


@contextmanager
def encoded(site: Site, encoding: str) -> Iterator[str]:
    """Yield the DSN of a database in `encoding` with a table `t (n int, kind text)`; drop it at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(site.primary, autocommit=True) as connection:
        statement = "CREATE DATABASE {} ENCODING {} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Literal(encoding)))
        try:
            dsn = make_conninfo(site.primary, dbname=name)
            run(dsn, b"CREATE TABLE t (n int, kind text)")
            yield dsn
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run(dsn: str, statement: bytes) -> list[tuple[object, ...]]:
    """Run a statement of raw bytes, which the server reads as text in the database's encoding."""
    with psycopg.connect(dsn, autocommit=True, client_encoding="SQL_ASCII") as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def written(text: str, encoding: str) -> bytes:
    """Return `text` in the encoding; Python cannot encode all of EUC_JP."""
    return b"\xc5\xec\xb5\xfe\xad\xa1\xa1\xc1" if encoding == "EUC_JP" else text.encode(CODECS[encoding])


@pytest.fixture
def native(site: Site, request: pytest.FixtureRequest) -> Iterator[str]:
    with encoded(site, request.param) as dsn:
        yield dsn


def encoding_of(dsn: str) -> str:
    ((encoding,),) = run(dsn, b"SELECT convert_to(getdatabaseencoding(), 'SQL_ASCII')")
    assert isinstance(encoding, bytes)
    return encoding.decode()


def asking(dsn: str) -> closing[Replica]:
    return closing(a_replica(dsn))


def converted(database: Database, encoding: str, texts: list[bytes]) -> list[str | None]:
    """Return each text as the server converts it; None if it cannot."""
    with psycopg.connect(database.primary_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.converted(raw bytea, encoding name) RETURNS text LANGUAGE plpgsql AS "
            "$$BEGIN RETURN convert_from(raw, encoding); EXCEPTION WHEN OTHERS THEN RETURN NULL; END$$"
        )
        each = "FROM unnest(%s::bytea[]) WITH ORDINALITY AS t(raw, at) ORDER BY at"
        answer = connection.execute(f"SELECT pg_temp.converted(raw, %s) {each}", (encoding, texts))
        return [text for (text,) in answer]


@pytest.mark.parametrize("encoding", [*SINGLE_BYTE, "EUC_CN"])
def test_every_character_is_read_and_written_as_the_server_converts_it(
    database: Database, encoding: str
) -> None:
    charset = charset_of(encoding.encode())
    assert charset.encoding == encoding
    texts = [bytes([byte]) for byte in range(0x80, 0x100)]
    if encoding == "EUC_CN":
        texts += [bytes([first, second]) for first in range(0xA1, 0xFF) for second in range(0xA1, 0xFF)]
    count = 0
    for raw, character in zip(texts, converted(database, encoding, texts), strict=True):
        if character is None:
            with pytest.raises(UnicodeDecodeError):
                charset.to_utf8(raw).decode()
        else:
            count += 1
            assert charset.to_utf8(raw) == character.encode()
            assert character.encode(charset.codec) == raw
    assert count > 80


@pytest.mark.parametrize("encoding", [None, b"UTF8", b"EUC_JP", b"EUC_TW", b"MULE_INTERNAL", b"\xff", b"New"])
def test_encodings_that_python_reads_differently_are_converted_by_the_server(encoding: bytes | None) -> None:
    assert charset_of(encoding) == UTF8


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("encoding", ["WIN1252", "WIN1253", "LATIN1", "SQL_ASCII"])
def test_only_rows_with_an_invalid_byte_are_dropped(
    database: Database, encoding: str, snapshot: bool, seed: int
) -> None:
    dice = random.Random(seed)
    alphabet = [*b"abc", *"ü€".encode(), 0x81, *dice.sample(range(0x80, 0x100), 40)]
    texts = sorted({bytes(dice.choices(alphabet, k=dice.randint(1, 3))) for _ in range(300)})
    right = converted(database, "UTF8" if encoding == "SQL_ASCII" else encoding, texts)
    rows = b", ".join(b"(%d, '%s')" % row for row in enumerate(texts))
    query = a_query(
        sql="SELECT n, kind FROM t",
        metrics=(a_metric(attribute_columns=["kind"]),),
        snapshot=snapshot,
        max_series=1000,
    )
    with encoded(database.site, encoding) as dsn:
        run(dsn, b"INSERT INTO t VALUES " + rows)
        with asking(dsn) as replica:
            result = to_result(replica.fetch([query])[0])
    assert result.outcome == "ok", result.error
    assert {(sample.value, sample.attributes["kind"]) for sample in result.samples} == {
        (number, text) for number, text in enumerate(right) if text is not None
    }
    bad = right.count(None)
    assert bad or encoding == "LATIN1"
    assert result.rejected == ({"not_utf8": bad} if bad else {})


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("native", WORDS, indirect=True)
def test_texts_outside_ascii_are_correct_in_statements_names_values_and_errors(
    native: str, snapshot: bool
) -> None:
    encoding = encoding_of(native)
    word = WORDS[encoding]
    raw = written(word, encoding)
    run(native, b"INSERT INTO t VALUES (1, 'x'), (2, '%s')" % raw)
    run(native, b'CREATE TABLE "t%s" ("c%s" int); INSERT INTO "t%s" VALUES (7)' % (raw, raw, raw))
    queries = [
        a_query(
            "literal",
            f"SELECT n, kind FROM t WHERE kind = '{word}'",
            metrics=(a_metric("literal", attribute_columns=["kind"]),),
            snapshot=snapshot,
        ),
        a_query(
            "names",
            f'SELECT "c{word}" AS n FROM "t{word}" -- {word}',
            requires={"columns": {f'"t{word}"': [f"c{word}"]}},
            estimate={"sql": "SELECT 1 AS n", "above_cost": 1e9},
            snapshot=snapshot,
        ),
        a_query("column", f'SELECT "c{word}" FROM "t{word}"', snapshot=snapshot),
        a_query("error", f"SELECT '{word}'::int AS n", snapshot=snapshot),
        a_query("missing", "SELECT 1 AS n", requires={"columns": {f'"t{word}"': [f"no{word}"]}}),
    ]
    with asking(native) as replica:
        for _ in range(2):  # on the same connection
            literal, names, column, error, missing = map(to_result, replica.fetch(queries))
            assert literal.outcome == "ok", literal.error
            assert [(sample.value, sample.attributes) for sample in literal.samples] == [(2, {"kind": word})]
            assert [sample.value for sample in names.samples] == [7], names
            assert column.error is not None
            assert column.error.message.endswith(f"the result has c{word}")
            assert error.error is not None
            assert error.error.sqlstate == "22P02"
            assert word in error.error.message
            assert missing.skipped is not None
            assert f"no{word}" in missing.skipped.detail


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("native", ["WIN1252", "SQL_ASCII", "EUC_CN"], indirect=True)
def test_invalid_bytes_in_names_and_errors_break_nothing(native: str, snapshot: bool) -> None:
    bad = BAD[encoding_of(native)]
    run(native, b"INSERT INTO t VALUES (1, '%s')" % bad)
    run(native, b'CREATE TABLE "u%s" ("%s" int, n int); INSERT INTO "u%s" VALUES (1, 5)' % (bad, bad, bad))
    run(native, b'CREATE VIEW v AS SELECT * FROM "u%s"' % bad)
    queries = [
        a_query("names", "SELECT * FROM v", snapshot=snapshot, requires={"columns": {"v": ["n"]}}),
        a_query(
            "plan",
            "SELECT n FROM v",
            snapshot=snapshot,
            estimate={"sql": "SELECT 1 AS n", "above_cost": 1e9},
        ),
        a_query("error", "SELECT kind::int AS n FROM t", snapshot=snapshot),
        a_query("good", "SELECT 3 AS n", snapshot=snapshot),
    ]
    with asking(native) as replica:
        names, plan, error, good = map(to_result, replica.fetch(queries))
    assert [sample.value for sample in names.samples] == [5], names.error
    assert [sample.value for sample in plan.samples] == [5], plan.error
    assert error.error is not None
    assert error.error.sqlstate == "22P02"
    assert "\ufffd" in error.error.message
    assert [sample.value for sample in good.samples] == [3]


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("native", ["WIN1252", "LATIN1", "EUC_CN", "EUC_JP"], indirect=True)
def test_a_character_unknown_to_the_database_fails_only_its_query(native: str, snapshot: bool) -> None:
    foreign = a_query("foreign", "SELECT 1 AS n -- \U0001f40c", snapshot=snapshot)
    good = a_query("good", "SELECT 2 AS n", snapshot=snapshot)
    for queries in ([foreign, good], [good, foreign], [foreign], [good]):
        with asking(native) as replica:
            results = {result.query.name: result for result in map(to_result, replica.fetch(queries))}
        if refused := results.get("foreign"):
            assert refused.error is not None
            assert (refused.error.kind, refused.error.sqlstate) == ("rejected", "22P05")
            assert refused.error.position in (18, None)  # the server sends no position
            assert encoding_of(native) in refused.error.message
        if answered := results.get("good"):
            assert [sample.value for sample in answered.samples] == [2], answered.error


@pytest.mark.parametrize("native", ["WIN1252", "EUC_CN"], indirect=True)
@pytest.mark.parametrize(
    ("requires", "reason"),
    [({"columns": {"\U0001f40c": []}}, "relation"), ({"member_of": ["\U0001f40c"]}, "privilege")],
)
def test_a_requirement_that_the_database_cannot_encode_skips_only_its_query(
    native: str, requires: dict[str, Any], reason: str
) -> None:
    foreign = a_query("foreign", "SELECT 1 AS n", requires=requires)
    good = a_query("good", "SELECT 2 AS n", requires={"columns": {"t": ["kind"]}})
    with asking(native) as replica:
        skipped, answered = replica.fetch([foreign, good])
    assert skipped.skipped is not None
    assert skipped.skipped.reason == reason
    assert answered.rows is not None
    assert answered.rows.values == [(b"2",)]


@pytest.mark.parametrize("native", ["EUC_JP"], indirect=True)
def test_an_invalid_value_that_the_server_must_convert_fails_only_its_query(native: str) -> None:
    run(native, b"INSERT INTO t VALUES (1, '%s'), (2, 'x')" % BAD["EUC_JP"])
    kinds = a_query("kinds", "SELECT n, kind FROM t", metrics=(a_metric(attribute_columns=["kind"]),))
    with asking(native) as replica:
        bad, good = map(to_result, replica.fetch([kinds, a_query("good", "SELECT count(*) AS n FROM t")]))
    assert bad.error is not None
    assert (bad.error.sqlstate, bad.error.hint) == ("22P05", "fix the value, or exclude it in the query")
    assert [sample.value for sample in good.samples] == [2]


QUERIES = """\
queries:
  - name: kinds
    sql: SELECT kind, count(*) AS "{word}", count(*) AS n FROM "t{word}" WHERE kind <> '{word}!' GROUP BY kind
    interval: 1s
    timeout: 1s
    metrics:
      - name: kinds_count
        unit: "{{row}}"
        description: Rows by kind.
        value_column: n
        attribute_columns: [kind]
"""


@pytest.mark.parametrize("native", ["WIN1252", "SQL_ASCII"], indirect=True)
def test_every_command_works_on_a_database_in_another_encoding(
    native: str, poller_process: Start, receiver: Receiver, tmp_path: Path
) -> None:
    encoding = encoding_of(native)
    word = WORDS[encoding]
    raw = written(word, encoding)
    run(
        native,
        b"CREATE TABLE \"t%s\" (kind text); INSERT INTO \"t%s\" VALUES ('%s'), ('%s'), ('%s'); ANALYZE"
        % (raw, raw, raw, raw, BAD[encoding]),
    )
    file = tmp_path / "q.yaml"
    file.write_text(QUERIES.format(word=word), encoding="utf-8")
    env = {
        "POLLER_DATABASE_URL": native,
        "POLLER_QUERIES": str(file),
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
    }

    polled = poller_process("poll", "--format", "json", env=env)
    polled.wait()
    (query,) = json.loads(polled.stdout)["queries"]
    assert [(sample["value"], sample["attributes"]) for sample in query["samples"]] == [(2, {"kind": word})]
    assert query["quarantined"] == {"not_utf8": 1}

    checked = poller_process("check", "--database", str(file), env=env)
    assert checked.wait() == 0, str(checked)

    looked = poller_process("doctor", "--format", "json", env=env)
    looked.wait()
    checks = {check.get("subject"): check for check in json.loads(looked.stdout)["checks"]}
    assert "1 not_utf8" in json.dumps(checks["kinds"]), checks["kinds"]

    tried = poller_process("try", f'SELECT kind, count(*) AS n FROM "t{word}" GROUP BY kind', env=env)
    assert tried.wait() == 0, str(tried)
    assert word in tried.stderr

    granted = CliRunner().invoke(app, ["grants", str(file)])
    assert f"t{word}" in granted.stdout

    daemon = poller_process("run", env=env | {"POLLER_EXPORT_INTERVAL": "300ms"})
    (point,) = receiver.wait_for(lambda points: [point for point in points if point.metric == "kinds_count"])
    assert (point.value, point.attributes["kind"]) == (2, word)
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0, str(daemon)


CASE = """\
schema: |
  CREATE TABLE "tZürich" (kind text);
  INSERT INTO "tZürich" VALUES (convert_from('\\x61816c', 'WIN1252'))
cases:
  - name: one of two
    rows:
      tZürich: |
        kind
        Zürich
    expect:
      - {attributes: {kind: Zürich}, value: 1}
    quarantined: {not_utf8: 1}
"""


@pytest.mark.parametrize("native", ["WIN1252"], indirect=True)
def test_cases_run_on_a_database_in_another_encoding(native: str, tmp_path: Path) -> None:
    run(native, b"DROP TABLE t")  # only an empty database is accepted
    (tmp_path / "q.yaml").write_text(QUERIES.format(word="Zürich"), encoding="utf-8")
    (tmp_path / "q.test.yaml").write_text(CASE, encoding="utf-8")
    done = CliRunner().invoke(app, ["test", str(tmp_path), "--database", native])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("native", ["LATIN1"], indirect=True)
def test_a_name_that_the_database_cannot_encode_is_a_problem_only_of_its_query(
    native: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = {"name": "a", "unit": "1", "description": "N.", "value_column": "n"}
    queries = [
        {"name": name, "sql": sql, "metrics": [metric | {"name": name}]}
        for name, sql in (
            ("good", "SELECT count(*) AS n FROM t"),
            ("plain", 'SELECT "\U0001f40c"(1) AS n'),
            ("escaped", 'SELECT U&"\\+01F40C"(1) AS n'),
        )
    ]
    (tmp_path / "q.yaml").write_text(json.dumps({"queries": queries}, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setenv("POLLER_DATABASE_URL", native)
    done = CliRunner().invoke(app, ["check", str(tmp_path / "q.yaml"), "--database", "--format", "json"])
    assert "plain" in done.output, done.output
    states = {query["query"]: query["state"] for query in json.loads(done.stdout)["queries"]}
    assert states == {"good": "ok", "plain": "refused", "escaped": "refused"}


@pytest.mark.parametrize("native", ["LATIN1"], indirect=True)
def test_a_pooled_session_is_returned_in_the_encoding_of_the_next_client(
    native: str, make_pgbouncer: Callable[..., PgBouncer]
) -> None:
    run(native, "INSERT INTO t VALUES (1, 'Zürich')".encode("latin1"))
    pooled = make_pgbouncer(native).dsn(native)
    query = a_query(
        sql="SELECT n, kind FROM t WHERE kind = 'Zürich'",
        metrics=(a_metric(attribute_columns=["kind"]),),
    )
    with asking(pooled) as replica:
        for _ in range(2):
            result = to_result(replica.fetch([query])[0])
            assert [(sample.value, sample.attributes["kind"]) for sample in result.samples] == [(1, "Zürich")]
            with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
                assert connection.execute("SELECT kind FROM t WHERE kind = 'Zürich'").fetchall() == [
                    ("Zürich",)
                ]


@pytest.mark.parametrize(
    "encodings", [("SQL_ASCII", "WIN1252"), ("WIN1252", "SQL_ASCII"), ("LATIN1", "UTF8")]
)
def test_a_pooler_that_switches_to_a_database_in_another_encoding_changes_no_text(
    site: Site, make_pgbouncer: Callable[..., PgBouncer], encodings: tuple[str, str]
) -> None:
    """The server reports the encoding of the first database, and the pooler does not report the second."""
    codecs = {**CODECS, "UTF8": "utf-8"}
    rows = [(b"1", "é".encode()), (b"2", "Ã©".encode())]
    queries = [
        a_query("all", "SELECT n, kind FROM t ORDER BY n"),
        a_query("one", "SELECT n, kind FROM t WHERE kind = 'é'"),
        a_query("alone", "SELECT n, kind FROM t WHERE kind = 'é'", snapshot=False),
    ]
    with encoded(site, encodings[0]) as first, encoded(site, encodings[1]) as second:
        for dsn, encoding in zip((first, second), encodings, strict=True):
            run(dsn, "INSERT INTO t VALUES (1, 'é'), (2, 'Ã©')".encode(codecs[encoding]))
        pooler = make_pgbouncer(first)
        pooler.lead_to(first)
        with asking(make_conninfo(pooler.dsn(first), dbname="x")) as replica:
            for dsn in (first, second):
                pooler.lead_to(dsn)
                answers = {answer.query.name: answer.rows for answer in replica.fetch(queries)}
                assert {name: result and result.values for name, result in answers.items()} == {
                    "all": rows, "one": rows[:1], "alone": rows[:1],
                }  # fmt: skip
