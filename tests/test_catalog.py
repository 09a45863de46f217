"""Every mistake in a query file is told, with its place and what to write instead."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.config.queries.schema.query import DeclaredQuery
from poller.model.catalog import Defaults
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.query import Estimate, QueryDefinition

CATALOGS = Path(__file__).parent / "catalogs"
DEFAULTS = Defaults(interval=300.0, timeout=30.0, max_series=1000)

MISTAKES: dict[str, list[str]] = {
    # tests/catalogs/invalid-<reason>.yaml: its problems behind `file:`; FILE stands for the file itself.
    "alert": [
        (
            "10: queries[0].metrics[0].alert[0].of: 'growth' is not one of value, daily_growth, "
            "weekly_change; write for example `of: daily_growth`"
        ),
        ("12: queries[0].metrics[0].alert[1].above: 'many' is not a limit; write a number like 100000"),
        (
            "13: queries[0].metrics[0].alert[1].fo: unknown key 'fo'; did you mean 'for'? known "
            "keys: of, above, below, for, severity, summary, runbook"
        ),
        (
            "15: queries[0].metrics[0].alert[2].above: 'half' is not a limit; write a number like "
            "50%, 0.5 or -30%"
        ),
        "16: queries[0].metrics[0].alert[2].for: 99d is longer than 7d; write 0s to 7d",
        ("17: queries[0].metrics[0].alert[3].above: '50%' is not a limit; write a number like 100000"),
        ("18: queries[0].metrics[0].alert[4]: has two limits; write one alert with above and one with below"),
        (
            "20: queries[0].metrics[0].alert[5].severity: 'page' is not one of critical, warning, "
            "info; write for example `severity: critical`"
        ),
        ("21: queries[0].metrics[0].alert[5].below: inf is not a limit; write a number like 100000"),
        (
            '22: queries[0].metrics[0].alert[6].summary: is empty; write for example `summary: "The '
            "queue is longer than a night's work.\"`"
        ),
        "24: queries[0].metrics[0].alert[7]: has no limit; write above or below and a number",
        (
            "25: queries[0].metrics[0].alert[8]: is a number, not a mapping; write for example "
            "`alert: [{above: 100000}]`"
        ),
    ],
    "alert-limit-empty": [
        "10: queries[0].metrics[0].alert[0].above: is empty; write a number like 100000",
    ],
    "alert-mapping": [
        (
            "9: queries[0].metrics[0].alert: is a mapping, not a list; write for example `alert: "
            "[{above: 100000}]`"
        ),
    ],
    "alert-twice": [
        (
            "9: queries[0].metrics[0].alert: has two equal alerts (value, above, warning); "
            "change the severity of one"
        ),
    ],
    "alias-as-key": [
        "4: queries[0].requires: has an alias as a key; write a text",
    ],
    "alias-bomb": [
        "5: e: is too large or too deep after its aliases are expanded; use fewer aliases",
    ],
    "alias-recursive": [
        "2: queries[0]: alias *all is inside its own anchor; remove it",
    ],
    "alias-unknown": [
        "1: queries: alias *users has no anchor above it; write &users before the value",
    ],
    "attribute-column-is-value": [
        (
            "9: queries[0].metrics[0].attribute_columns: column 'n' is also the value_column; keep "
            "one of the two"
        ),
    ],
    "attribute-column-item": [
        (
            "9: queries[0].metrics[0].attribute_columns[1]: is a list, not a text; write for example "
            "`attribute_columns: [state, tenant]`"
        ),
    ],
    "attribute-column-name": [
        (
            "9: queries[0].metrics[0].attribute_columns: 'left over' is not an attribute name; write "
            "letters, digits, _ and ., starting with a letter or _, or rename the column with AS"
        ),
    ],
    "attribute-column-twice": [
        "9: queries[0].metrics[0].attribute_columns: column 'state' is listed twice; keep one",
    ],
    "attribute-columns-text": [
        (
            "9: queries[0].metrics[0].attribute_columns: is a text, not a list; write for example "
            "`attribute_columns: [state, tenant]`"
        ),
    ],
    "attribute-values-empty": [
        ("10: queries[0].metrics[0].attribute_values: 'state' has no values; list all values of the column"),
    ],
    "attribute-values-long": [
        (
            "10: queries[0].metrics[0].attribute_values: value '" + "x" * 57 + "...' of 'state' has 1025 "
            "characters; write at most 1024"
        ),
    ],
    "attribute-values-of-no-column": [
        (
            "10: queries[0].metrics[0].attribute_values: 'stat' is not in attribute_columns; add it "
            "there, or omit it"
        ),
    ],
    "attribute-values-too-many": [
        (
            "5: queries[0].max_series: things has 6 sets of attribute_values and max_series is 5; write "
            "max_series: 6, or remove attribute_values"
        ),
    ],
    "attribute-values-twice": [
        "10: queries[0].metrics[0].attribute_values: value 'a' of 'state' is listed twice; keep one",
    ],
    "overflow-without-attributes": [
        (
            "5: queries[0].overflow: is other, which requires attribute_columns; add them to things, or "
            "write drop"
        ),
    ],
    "overflow-without-order": [
        ("5: queries[0].overflow: is other, which requires an order of the rows; end sql with ORDER BY"),
    ],
    "overflow-word": [
        "5: queries[0].overflow: 'sum' is not one of drop, other; write for example `overflow: other`",
    ],
    "attribute-in-both": [
        ("10: queries[0].metrics[0].attributes: 'state' is also in attribute_columns; keep one of the two"),
    ],
    "attribute-labels-equal": [
        (
            "9: queries[0].metrics[0].attributes: 'user.state' and 'user_state' become the same "
            "label in Prometheus; rename one"
        ),
    ],
    "attribute-name-reserved": [
        (
            "9: queries[0].metrics[0].attributes: '__name__' begins with __, which Prometheus reserves; "
            "rename it"
        ),
    ],
    "attribute-value-huge": [
        (
            "9: queries[0].metrics[0].attributes: attribute 'limit' is an integer beyond 64 bits; "
            "write it in quotes"
        ),
    ],
    "attribute-value-infinite": [
        (
            "9: queries[0].metrics[0].attributes: attribute 'limit' is inf, which cannot be exported; "
            "write a text"
        ),
    ],
    "attribute-value": [
        (
            "9: queries[0].metrics[0].attributes.env: is a list, not a text, number or boolean; "
            "write for example `attributes: {env: prod}`"
        ),
        "9: queries[0].metrics[0].attributes.tier: is empty; write for example `attributes: {env: prod}`",
    ],
    "attributes-list": [
        (
            "9: queries[0].metrics[0].attributes: is a list, not a mapping; write for example "
            "`attributes: {env: prod}`"
        ),
    ],
    "comments-only": [
        "1: is empty; write `queries:` and a list of queries below it",
    ],
    "control-character": [
        "2:13: contains the character U+0007, which YAML does not allow; omit it",
    ],
    "description-blank": [
        "6: queries[0].metrics[0].description: is blank; write a sentence that explains the number",
    ],
    "description-empty": [
        (
            "6: queries[0].metrics[0].description: is empty; write for example `description: "
            '"Messages waiting for delivery."`'
        ),
    ],
    "duplicate-key": [
        "5: queries[0].interval: key 'interval' is written twice, on lines 4 and 5; keep one",
    ],
    "estimate": [
        "4: queries[0].snapshot: is a text, not true or false; write for example `snapshot: true`",
        (
            "5: queries[0].requires.member_of: is a text, not a list; write for example "
            "`member_of: [pg_read_all_stats]`"
        ),
        ("7: queries[0].estimate.sql: is DELETE; a query may only read: write SELECT, WITH, VALUES or TABLE"),
        "8: queries[0].estimate.above_cost: 0 is not above 0; write for example `above_cost: 1000000`",
        "9: queries[0].estimate.over: unknown key 'over'; known keys: sql, above_cost",
        (
            "14: queries[1].estimate: is a number, not a mapping; write for example `estimate: {sql: "
            "\"SELECT nullif(reltuples, -1)::bigint AS n FROM pg_class WHERE oid = 't'::regclass\", "
            "above_cost: 1000000}`"
        ),
        "19: queries[2].estimate.above_cost: is missing; write for example `above_cost: 1000000`",
    ],
    "file-snapshot": [
        "1: snapshot: is a number; write true or false",
    ],
    "empty": [
        "1: is empty; write `queries:` and a list of queries below it",
    ],
    "everything-at-once": [
        (
            "2: queries[0].name: 'A' is not a query name; write lower-case letters, digits, _, - and "
            "., starting with a letter, at most 63"
        ),
        ("3: queries[0].sql: is DROP TABLE; a query may only read: write SELECT, WITH, VALUES or TABLE"),
        (
            "4: queries[0].interval: interval 1s is shorter than timeout 5s; write an interval of at "
            "least 5s, or a shorter timeout"
        ),
        (
            "6: queries[0].max_age: max_age 500ms is shorter than interval 1s, so values would "
            "expire before the next poll; write at least 1s"
        ),
        (
            "7: queries[0].groop: unknown key 'groop'; did you mean 'group'? known keys: name, sql, "
            "interval, timeout, max_age, max_series, overflow, group, requires, snapshot, estimate, metrics"
        ),
        "11: queries[0].metrics[0].unit: 'MB' is not a UCUM unit; write 'MBy'",
        (
            "13: queries[0].metrics[0].on_null: 'x' is not one of drop, zero, fail; write for example "
            "`on_null: drop`"
        ),
    ],
    "group-empty": [
        "4: queries[0].group: is empty; write for example `group: inventory`",
    ],
    "indentation": [
        "3:9: a key is not allowed here; check the indentation, or quote a text that contains `: `",
    ],
    "interval-empty": [
        "4: queries[0].interval: is empty; write one like 30s, 5m or 1h30m",
    ],
    "interval-infinite": [
        "4: queries[0].interval: inf is not a duration; write one like 30s, 5m or 1h30m",
    ],
    "interval-list": [
        "4: queries[0].interval: a list is not a duration; write one like 30s, 5m or 1h30m",
    ],
    "interval-long": [
        "4: queries[0].interval: 2d is longer than 24h; write 1s to 24h",
    ],
    "interval-short": [
        "4: queries[0].interval: 0.5s is shorter than 1s; write 1s to 24h",
    ],
    "interval-time": [
        "4: queries[0].interval: '12:30:00' is not a duration; write one like 30s, 5m or 1h30m",
    ],
    "interval-under-timeout": [
        (
            "5: queries[0].interval: interval 30s is shorter than timeout 1m; write an interval of "
            "at least 1m, or a shorter timeout"
        ),
    ],
    "interval-word": [
        "4: queries[0].interval: 'often' is not a duration; write one like 30s, 5m or 1h30m",
    ],
    "key-not-a-word": [
        "2: queries[0]: has a mapping or list as a key; write a text",
    ],
    "max-age-short": [
        (
            "5: queries[0].max_age: max_age 5m is shorter than interval 10m, so values would "
            "expire before the next poll; write at least 10m"
        ),
    ],
    "max-series-fraction": [
        "4: queries[0].max_series: 1.5 is not a whole number; write for example `max_series: 1000`",
    ],
    "max-series-large": [
        "4: queries[0].max_series: 1000001 is more than 1000000; write 1 to 1000000",
    ],
    "max-series-word": [
        "4: queries[0].max_series: 'many' is not a whole number; write for example `max_series: 1000`",
    ],
    "max-series-zero": [
        "4: queries[0].max_series: 0 is less than 1; write 1 to 1000000",
    ],
    "merge-text": [
        (
            "4: queries[0]['<<']: merges a value that is not a mapping; write `<<: *name` of an "
            "anchored mapping"
        ),
    ],
    "merge-twice": [
        "4: queries[0]['<<']: alias *b has no anchor above it; write &b before the value",
    ],
    "metric-fed-twice": [
        (
            "9: queries[0].metrics[1].name: 'users_total' has the same attributes at FILE:5; change "
            "the attributes of one"
        ),
    ],
    "metric-name-reserved": [
        (
            "5: queries[0].metrics[0].name: 'poller.polls' begins with poller., which the "
            "poller reserves; rename it"
        ),
    ],
    "metric-name": [
        (
            "5: queries[0].metrics[0].name: 'usersTotal' is not a metric name; write lower-case "
            "letters, digits, _ and ., starting with a letter, at most 255"
        ),
    ],
    "metric-names-translate-equal": [
        (
            "12: queries[1].metrics[0].name: becomes 'users_total' in Prometheus, as 'users.total' "
            "at FILE:5 does; rename one"
        ),
    ],
    "metric-type-differs": [
        (
            "9: queries[1].metrics[0].type: differs from the type of 'messages.sent' at FILE:5; "
            "write the same, or rename one"
        ),
        (
            "13: queries[2].metrics[0].name: becomes 'messages_sent_total' in Prometheus, as "
            "'messages.sent' at FILE:5 does; rename one"
        ),
    ],
    "metric-unit-becomes-suffix": [
        (
            "12: queries[1].metrics[0].name: becomes 'age_seconds' in Prometheus, as 'age' at FILE:5 "
            "does; rename one"
        ),
    ],
    "metric-unit-differs": [
        (
            "13: queries[1].metrics[0].description: differs from the description of 'users_total' at "
            "FILE:6; write the same, or rename one"
        ),
        (
            "14: queries[1].metrics[0].unit: differs from the unit of 'users_total' at FILE:7; write "
            "the same, or rename one"
        ),
    ],
    "metrics-empty-list": [
        (
            "4: queries[0].metrics: is empty; write for example `metrics: [{name: users_total, unit: "
            '"{user}", value_column: n, description: "Registered users."}]`'
        ),
    ],
    "metrics-empty": [
        (
            "4: queries[0].metrics: is empty; write for example `metrics: [{name: users_total, unit: "
            '"{user}", value_column: n, description: "Registered users."}]`'
        ),
    ],
    "metrics-mapping": [
        (
            "4: queries[0].metrics: is a mapping, not a list; write for example `metrics: [{name: "
            'users_total, unit: "{user}", value_column: n, description: "Registered users."}]`'
        ),
    ],
    "missing-keys": [
        "2: queries[0].name: is missing; write for example `name: pending_messages`",
        (
            "2: queries[0].sql: is missing; write for example `sql: SELECT count(*) AS pending FROM "
            "messages WHERE expires_at > now()`"
        ),
        (
            "2: queries[0].metrics: is missing; write for example `metrics: [{name: users_total, "
            'unit: "{user}", value_column: n, description: "Registered users."}]`'
        ),
    ],
    "missing-metric-keys": [
        "5: queries[0].metrics[0].name: is missing; write for example `name: pending_messages_total`",
        (
            "5: queries[0].metrics[0].description: is missing; write for example `description: "
            '"Messages waiting for delivery."`'
        ),
        '5: queries[0].metrics[0].unit: is missing; write for example `unit: "{message}"`',
        "5: queries[0].metrics[0].value_column: is missing; write for example `value_column: pending`",
    ],
    "nested-too-deep": [
        "1: queries[0][0][0][0][0][0][0][0][0]...: is nested deeper than 32 levels; reduce the nesting",
    ],
    "not-utf8": [
        "6: is not UTF-8 (byte 0xe9); save the file as UTF-8",
    ],
    "nul-escape": [
        (
            "6: queries[0].metrics[0].description: contains an invalid character (NUL, or half of "
            "a surrogate pair); omit it"
        ),
    ],
    "null-document": [
        "2: is empty; write `queries:` and a list of queries below it",
    ],
    "on-null-truth": [
        (
            "9: queries[0].metrics[0].on_null: is a truth value, not one of drop, zero, fail; write "
            "for example `on_null: drop`"
        ),
    ],
    "on-null": [
        (
            "9: queries[0].metrics[0].on_null: 'ignore' is not one of drop, zero, fail; write for "
            "example `on_null: drop`"
        ),
    ],
    "queries-empty-list": [
        "1: queries: is empty; write at least one query below it, each with a leading dash",
    ],
    "queries-empty": [
        "1: queries: is empty; write at least one query below it, each with a leading dash",
    ],
    "queries-mapping": [
        "1: queries: is a mapping, not a list; begin each query with a dash",
    ],
    "queries-missing": [
        "2: name: unknown key 'name'; known keys: queries, snapshot",
        "2: queries: is missing; write `queries:` and a list of queries below it",
    ],
    "queries-misspelt": [
        "1: querys: unknown key 'querys'; did you mean 'queries'? known keys: queries, snapshot",
    ],
    "query-name-long": [
        (
            "2: queries[0].name: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...' is "
            "not a query name; write lower-case letters, digits, _, - and ., starting with a letter, "
            "at most 63"
        ),
    ],
    "query-name-number": [
        (
            "2: queries[0].name: '5' is not a query name; write lower-case letters, digits, _, - and "
            "., starting with a letter, at most 63"
        ),
    ],
    "query-name-truth": [
        "2: queries[0].name: is a truth value, not a text; write for example `name: pending_messages`",
    ],
    "query-name": [
        (
            "2: queries[0].name: 'Users' is not a query name; write lower-case letters, digits, _, - "
            "and ., starting with a letter, at most 63"
        ),
    ],
    "query-text": [
        "2: queries[0]: is a text, not a mapping; write name, sql and metrics",
        "3: queries[1]: is empty; write name, sql and metrics",
    ],
    "query-twice": [
        "9: queries[1].name: 'users' is also the query at FILE:2; rename one",
    ],
    "requires-columns": [
        (
            "5: queries[0].requires.columns.users: is a text, not a list; write for example "
            "`columns: {attachments: [size_bytes]}`"
        ),
        (
            "5: queries[0].requires.columns.messages: is empty; write for example `columns: "
            "{attachments: [size_bytes]}`"
        ),
    ],
    "requires-empty": [
        (
            "4: queries[0].requires: is empty; write for example `requires: {columns: {attachments: "
            "[size_bytes]}}`"
        ),
    ],
    "requires-extensions": [
        (
            "4: queries[0].requires.extensions: is a text, not a list; write for example "
            "`extensions: [pg_stat_statements]`"
        ),
    ],
    "requires-role": [
        (
            "4: queries[0].requires.role: 'replica' is not one of standby, primary, any; write for "
            "example `role: standby`"
        ),
    ],
    "requires-version": [
        (
            "4: queries[0].requires.server_version: '14' is not a version range; write one like >=14 "
            "or >=14,<18"
        ),
    ],
    "several-documents": [
        "2: begins a second document; remove the `---`, or move it to its own file",
    ],
    "snapshot-word": [
        "4: queries[0].snapshot: is a text, not true or false; write for example `snapshot: true`",
    ],
    "sql-comment": [
        "3: queries[0].sql: contains no statement; write one SELECT, WITH, VALUES or TABLE",
    ],
    "sql-empty": [
        "3: queries[0].sql: contains no statement; write one SELECT, WITH, VALUES or TABLE",
    ],
    "sql-explain": [
        "3: queries[0].sql: is EXPLAIN; a query may only read: write SELECT, WITH, VALUES or TABLE",
    ],
    "sql-into": [
        "3: queries[0].sql: contains SELECT INTO, which creates a table; omit INTO",
    ],
    "sql-locks": [
        (
            "3: queries[0].sql: locks rows (FOR UPDATE or FOR SHARE), which a standby rejects; omit "
            "that clause"
        ),
    ],
    "sql-parameter": [
        "3: queries[0].sql: has a parameter $1; write the value itself",
    ],
    "sql-several": [
        "3: queries[0].sql: contains 3 statements; write one query per statement",
    ],
    "sql-syntax": [
        (
            "3: queries[0].sql: is not SQL that PostgreSQL understands: syntax error at or near "
            '"FORM" (line 2, column 1 of sql)'
        ),
    ],
    "sql-writes-in-with": [
        "3: queries[0].sql: contains DELETE inside WITH; a query may only read",
    ],
    "sql-writes": [
        "3: queries[0].sql: is DELETE; a query may only read: write SELECT, WITH, VALUES or TABLE",
    ],
    "syntax": [
        (
            "3:8: is not YAML: did not find expected ',' or ']', while parsing a flow sequence that "
            "begins on line 2"
        ),
    ],
    "tab": [
        "2:1: a tab cannot indent YAML; write spaces",
    ],
    "tag": [
        "4: queries[0].interval: tag !!str is not supported; write the value without it",
        "5: queries[0].group: tag !env is not supported; write the value without it",
    ],
    "timeout-over-default-interval": [
        (
            "4: queries[0].timeout: interval 5m is shorter than timeout 10m; write an interval of at "
            "least 10m, or a shorter timeout"
        ),
    ],
    "timeout-zero": [
        "4: queries[0].timeout: 0s is shorter than 1ms; write at least 1ms",
    ],
    "top-level-list": [
        "1: is a list, not a mapping; write `queries:` and a list of queries below it",
    ],
    "top-level-text": [
        "1: is a text, not a mapping; write `queries:` and a list of queries below it",
    ],
    "type-counter-alert": [
        (
            "10: queries[0].metrics[0].alert: compares the value of a counter, which depends on "
            "its last reset; write of: daily_growth or of: weekly_change"
        ),
    ],
    "type-counter-estimate": [
        (
            "4: queries[0].estimate: may be lower than the exact value before it, but messages_sent"
            " is a counter; omit it, or write type: gauge"
        ),
    ],
    "type-counter-on-null-zero": [
        (
            "10: queries[0].metrics[0].on_null: is zero, which would look like a reset of the counter; "
            "write drop or fail"
        ),
    ],
    "type-counter-overflow": [
        (
            "4: queries[0].overflow: is other, whose sum may fall, but messages_sent is a counter; "
            "write drop, or type: updowncounter"
        ),
    ],
    "type-histogram": [
        (
            "9: queries[0].metrics[0].type: 'histogram' is not one of gauge, counter, updowncounter, "
            "because an OTLP histogram must not fall; return a row per bucket, with the count of "
            "values up to the bound `le` ('+Inf' for the last), and write attribute_columns: [le] for "
            "histogram_quantile()"
        ),
    ],
    "type-list": [
        (
            "9: queries[0].metrics[0].type: is a list, not one of gauge, counter, updowncounter; "
            "write for example `type: counter`"
        ),
    ],
    "type-misspelt": [
        (
            "9: queries[0].metrics[0].type: 'countr' is not one of gauge, counter, updowncounter; did "
            "you mean 'counter'?"
        ),
    ],
    "type-sum": [
        (
            "9: queries[0].metrics[0].type: 'Sum' is not one of gauge, counter, updowncounter; write "
            "counter if it only grows, else updowncounter"
        ),
    ],
    "unit-empty": [
        '7: queries[0].metrics[0].unit: is empty; write for example `unit: "{message}"`',
    ],
    "unit-list": [
        '7: queries[0].metrics[0].unit: is a list, not a text; write for example `unit: "{message}"`',
    ],
    "unit-unknown": [
        "7: queries[0].metrics[0].unit: 'bytes' is not a UCUM unit; write 'By'",
    ],
    "unit-word": [
        (
            "7: queries[0].metrics[0].unit: 'users' is not a UCUM unit; for a count of things write "
            "the thing in braces: '{user}'"
        ),
    ],
    "unknown-key": [
        (
            "4: queries[0].intervall: unknown key 'intervall'; did you mean 'interval'? known keys: "
            "name, sql, interval, timeout, max_age, max_series, overflow, group, requires, snapshot, "
            "estimate, metrics"
        ),
        (
            "5: queries[0].colour: unknown key 'colour'; known keys: name, sql, interval, timeout, "
            "max_age, max_series, overflow, group, requires, snapshot, estimate, metrics"
        ),
    ],
    "unknown-metric-key": [
        (
            "8: queries[0].metrics[0].unti: unknown key 'unti'; did you mean 'unit'? known keys: "
            "name, description, unit, type, value_column, attribute_columns, attribute_values, attributes, "
            "on_null, alert"
        ),
    ],
    "unknown-requirement": [
        (
            "5: queries[0].requires.colums: unknown key 'colums'; did you mean 'columns'? known "
            "keys: columns, role, server_version, extensions, member_of"
        ),
    ],
    "unquoted-braces": [
        (
            "7: queries[0].metrics[0].unit: is a mapping, because braces without quotes mean one; "
            'write for example `unit: "{message}"`'
        ),
    ],
    "unquoted-percent": [
        "7:15: a value cannot begin with %; write it in quotes",
    ],
    "unquoted-star": [
        "3:11: a value that begins with * or & names an anchor; quote a text",
    ],
    "unquoted-version": [
        "5:24: after | or > a text begins on the next line; quote a value that begins with | or >",
    ],
    "value-column-empty": [
        "8: queries[0].metrics[0].value_column: is empty; write for example `value_column: pending`",
    ],
}


def problems(*sources: Path, defaults: Defaults = DEFAULTS) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(sources, defaults)
    return [str(problem) for problem in caught.value.problems]


def expected(reason: str, file: str) -> list[str]:
    return [f"{file}:{what.replace('FILE', file)}" for what in MISTAKES[reason]]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def query(name: str, metric: str, *, unit: str = "s", description: str = "x", more: str = "") -> str:
    return (
        f"  - name: {name}\n    sql: SELECT 1 AS n\n{more}    metrics:\n"
        f'      - {{name: {metric}, unit: "{unit}", description: {description}, value_column: n}}\n'
    )


@pytest.mark.parametrize("reason", MISTAKES)
def test_a_mistake_is_told_in_exactly_these_words(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CATALOGS)  # a path is shown as it was given
    file = f"invalid-{reason}.yaml"
    assert problems(Path(file)) == expected(reason, file)


def test_every_invalid_file_is_in_the_table() -> None:
    assert {path.name for path in CATALOGS.glob("invalid-*")} == {
        f"invalid-{reason}.yaml" for reason in MISTAKES
    }


def test_no_message_speaks_as_a_library_does() -> None:
    told = "\n".join(what for whats in MISTAKES.values() for what in whats)
    assert not re.search(
        r"Input should|Value error|pydantic|valid (string|list|tuple)|https?://|None\b", told
    )


def test_a_folder_tells_the_problems_of_all_its_files_at_once_by_file_and_line(tmp_path: Path) -> None:
    reasons = [reason for reason in MISTAKES if not re.match(r"metric-|query-twice|everything", reason)]
    for reason in reasons:
        shutil.copy(CATALOGS / f"invalid-{reason}.yaml", tmp_path)
    told = problems(tmp_path)
    wanted = [
        line
        for file in sorted(tmp_path.iterdir())
        for line in expected(file.stem.removeprefix("invalid-"), str(file))
    ]
    # The files declare the same query again and again, which is told beside what each has wrong of its own.
    assert [line for line in told if line in wanted] == wanted
    order = [re.match(r"(.*?\.yaml)(?::(\d+))?", line) for line in told]
    places = [(match[1], int(match[2] or 0)) for match in order if match]
    assert len(places) == len(told)
    assert places == sorted(places)


def test_a_good_file_beside_a_bad_one_hides_nothing(tmp_path: Path) -> None:
    shutil.copy(CATALOGS / "valid-complete.yaml", tmp_path)
    shutil.copy(CATALOGS / "invalid-interval-word.yaml", tmp_path)
    assert problems(tmp_path) == expected("interval-word", str(tmp_path / "invalid-interval-word.yaml"))


def test_a_name_used_in_two_files_is_told_with_both_places_though_one_query_is_bad(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="queries:\n" + query("users", "a", more="    interval: x\n"),
        b="queries:\n" + query("users", "b"),
    )
    assert problems(tmp_path) == [
        f"{tmp_path}/a.yaml:4: queries[0].interval: 'x' is not a duration; write one like 30s, 5m or 1h30m",
        f"{tmp_path}/b.yaml:2: queries[0].name: 'users' is also the query at {tmp_path}/a.yaml:2; rename one",
    ]


def test_a_metric_of_two_files_with_two_units_is_told_with_both_places(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "size"), b="queries:\n" + query("b", "size", unit="By"))
    here = f"{tmp_path}/b.yaml:5: queries[0].metrics[0].unit"
    there = f"{tmp_path}/a.yaml:5"
    what = f"differs from the unit of 'size' at {there}; write the same, or rename one"
    assert problems(tmp_path) == [f"{here}: {what}"]


def test_two_queries_may_feed_one_metric_of_one_meaning(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "size"), b="queries:\n" + query("b", "size"))
    catalog = load([tmp_path], DEFAULTS)
    assert list(catalog.metrics) == ["size"]
    assert [one.name for one in catalog.queries] == ["a", "b"]


def test_what_a_query_does_not_declare_comes_from_the_defaults() -> None:
    (users,) = load([CATALOGS / "valid-minimal.yaml"], Defaults(60.0, 90.0, 7)).queries
    assert (users.interval, users.timeout, users.max_age, users.max_series) == (60.0, 60.0, 180.0, 7)


def test_max_age_and_timeout_follow_a_declared_interval(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "n", more="    interval: 10s\n"))
    (only,) = load([tmp_path], DEFAULTS).queries
    assert (only.interval, only.timeout, only.max_age) == (10.0, 10.0, 30.0)


def test_every_key_of_a_complete_query_arrives() -> None:
    (one,) = load([CATALOGS / "valid-complete.yaml"], DEFAULTS).queries
    assert (one.interval, one.timeout, one.max_age, one.max_series) == (5400.0, 90.0, 86400.0, 1000)
    assert dict(one.requires.columns) == {"attachments": ("state", "size"), "public.users": ()}
    assert (one.requires.role, one.requires.server_version) == ("standby", ">=14, <19")
    assert (one.requires.extensions, one.requires.member_of) == (
        ("pg_stat_statements",),
        ("pg_read_all_stats",),
    )
    assert one.snapshot is False
    assert one.estimate == Estimate(sql="SELECT 1 AS n", above_cost=1000)
    (metric,) = one.metrics
    # `no` is a word, 007 keeps its zeros and 12:30:00 is no number of seconds: YAML 1.2, not 1.1.
    assert metric.attributes == {
        "env": "prod",
        "shard": 3,
        "weight": 0.5,
        "live": True,
        "answer": "no",
        "code": "007",
        "at": "12:30:00",
    }
    assert metric.attributes["live"] is True
    assert metric.type == "updowncounter"
    assert metric.on_null == "zero"
    growth, change = metric.alert
    assert (growth.of, growth.side, growth.limit, growth.for_) == ("daily_growth", "above", 1e4, 3600.0)
    assert (growth.severity, growth.summary, growth.runbook) == (
        "info",
        "It grows.",
        "https://wiki.example/a",
    )
    assert (change.of, change.side, change.limit, change.for_) == ("weekly_change", "below", -0.3, 900.0)
    assert (change.severity, change.summary, change.runbook) == ("warning", None, None)


def test_a_file_opts_its_queries_out_of_the_snapshot_and_a_query_back_in() -> None:
    own, shared = load([CATALOGS / "valid-without-snapshot.yaml"], DEFAULTS).queries
    assert (own.snapshot, shared.snapshot) == (False, True)
    assert own.estimate is not None
    assert own.estimate.above_cost == 1e6


def test_anchors_and_merge_keys_save_repetition_and_explicit_keys_win() -> None:
    first, second = load([CATALOGS / "valid-anchors.yaml"], DEFAULTS).queries
    assert (first.interval, first.timeout) == (600.0, 60.0)
    assert (second.interval, second.timeout, second.group) == (1200.0, 60.0, "rest")
    assert [metric.value_column for metric in first.metrics] == ["n", "reachable"]
    assert second.metrics[0] == first.metrics[0]


def test_a_problem_of_an_alias_is_told_where_the_value_is_written(tmp_path: Path) -> None:
    text = "queries:\n" + query("a", "n", more="    requires: &r\n      role: none\n")
    write(tmp_path, a=text + query("b", "m", more="    requires: *r\n"))
    assert [line.split(": ")[0] for line in problems(tmp_path)] == [f"{tmp_path}/a.yaml:5"] * 2


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    (users,) = load([CATALOGS / "valid-bom-and-crlf.yaml"], DEFAULTS).queries
    assert users.requires.columns == {"users": ()}


def test_the_namespace_stands_before_every_metric_and_not_in_messages(tmp_path: Path) -> None:
    namespaced = Defaults(300.0, 30.0, 1000, "obscura")
    catalog = load([CATALOGS / "valid-minimal.yaml"], namespaced)
    assert list(catalog.metrics) == ["obscura_users_total"]
    assert catalog.queries[0].metrics[0].name == "obscura_users_total"
    long = "n" * 250
    write(tmp_path, a="queries:\n" + query("a", long) + query("b", "Bad"))
    too_long, bad = problems(tmp_path, defaults=namespaced)
    what = "has 258 characters with the namespace 'obscura'; OpenTelemetry allows 255"
    assert too_long == f"{tmp_path}/a.yaml:5: queries[0].metrics[0].name: {what}"
    assert bad.startswith(f"{tmp_path}/a.yaml:9: queries[1].metrics[0].name: 'Bad' is not a metric name; ")


def test_a_folder_gives_its_yaml_files_in_order_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, b="queries:\n" + query("b", "b"), a="queries:\n" + query("a", "a"))
    (tmp_path / "c.yml").write_text("queries:\n" + query("c", "c"))
    (tmp_path / ".hidden.yaml").write_text("not a query file")
    (tmp_path / "notes.txt").write_text("neither is this")
    write_into = tmp_path / "inner.yaml"
    write_into.mkdir()
    write(write_into, d="queries:\n" + query("d", "d"))
    catalog = load([tmp_path], DEFAULTS)
    assert [path.name for path in catalog.files] == ["a.yaml", "b.yaml", "c.yml"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "a"))
    assert len(load([tmp_path, tmp_path / "a.yaml"], DEFAULTS).queries) == 1


def test_files_that_cannot_be_read_are_told_and_waited_for_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    assert problems(tmp_path, tmp_path / "no.yaml") == [
        f"{tmp_path}/a.yaml: cannot be read: No such file or directory",
        f"{tmp_path}/b.yaml: is not a regular file; write a file or a folder",
        f"{tmp_path}/c.yaml:1: is larger than 1 MiB; split it into several files",
        f"{tmp_path}/no.yaml: does not exist; write a folder of query files, or a file",
    ]


def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    write(tmp_path, a="")
    (tmp_path / "a.yaml").chmod(0)
    # Root may read every file, unless it has given that up.
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_others, sys.executable, "-m", "poller", "check", str(tmp_path)], capture_output=True, text=True
    )
    told = f"{tmp_path}/a.yaml: cannot be read: Permission denied\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_the_shipped_words_mean_the_packaged_folders(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "a"))
    shipped, extended, own = resolve(f"shipped:extended: {tmp_path} :")
    assert shipped.name == "queries"
    assert extended == shipped / "extended"
    assert own == tmp_path
    catalog = load([shipped, extended, own], DEFAULTS)
    gauges = {"users_total", "pending_messages_total", "attachments_total_count", "attachments_total_bytes"}
    assert gauges <= set(catalog.metrics)


def test_every_folder_that_is_missing_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(f"shiped:{tmp_path}")
    missing = "does not exist; write a folder of query files, or a file; did you mean 'shipped'?"
    empty = "contains no query file; add a *.yaml file, or write another folder"
    assert [(problem.where, problem.message) for problem in caught.value.problems] == [
        ("POLLER_QUERIES", f"'shiped' {missing}"),
        ("POLLER_QUERIES", f"'{tmp_path}' {empty}"),
    ]
    with pytest.raises(ConfigError, match="POLLER_QUERIES: is empty"):
        resolve(" : ")


def test_queries_are_selected_by_name_and_pattern_in_the_order_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("users", "a") + query("users_new", "b") + query("inbox", "c"))
    catalog = load([tmp_path], DEFAULTS)

    def names(*patterns: str) -> list[str]:
        return [one.name for one in catalog.select(patterns)]

    assert names("inbox", "users*") == ["users", "users_new", "inbox"]
    assert names("*s") == ["users"]
    with pytest.raises(ConfigError) as caught:
        catalog.select(["user", "z*", "users"])
    assert str(caught.value).splitlines() == [
        "--query: 'user' matches no query; did you mean 'users'? there are: inbox, users, users_new",
        "--query: 'z*' matches no query; there are: inbox, users, users_new",
    ]


def loads_or_tells(path: Path) -> None:
    told: Sequence[Diagnostic] = ()
    try:
        catalog = load([path], DEFAULTS)
        assert all(isinstance(one, QueryDefinition) for one in catalog.queries)
    except ConfigError as error:
        told = error.problems or [invalid("nowhere", "a failure without a reason")]
    for problem in told:
        assert problem.where.startswith(str(path))
        assert "\n" not in str(problem)
        assert len(problem.message) < 1000


KEYS = sorted(
    {*DeclaredQuery.model_fields, "unit", "value_column", "attributes", "on_null", "columns", "<<", "x"}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["5m", "users", "By"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)
QUERIES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["users", "Users"]) | TREES,
        "sql": st.sampled_from(["SELECT 1 AS n", "TABLE t; COMMIT"]) | TREES,
        "metrics": st.lists(
            st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, TREES)),
            max_size=3,
        )
        | TREES,
    },
    optional={key: TREES for key in KEYS if key not in ("name", "sql", "metrics")},
)
# Files are written into one folder again and again, which is what the health check warns of and is meant.
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(
    raw=st.binary(max_size=200)
    | st.text(alphabet="abc:-[]{}&*<!|>'\"%@ \n\t#?,0\\", max_size=80).map(str.encode)
)
def test_any_bytes_load_or_are_told(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    loads_or_tells(path)


@FUZZ
@given(data=TREES | st.fixed_dictionaries({"queries": st.lists(QUERIES | TREES, max_size=3)}))
def test_any_structure_loads_or_is_told(tmp_path: Path, data: object) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    loads_or_tells(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 500_000,
        b"- " * 500_000,
        b"? " * 500_000,
        b"{a: " * 200_000,
        b"a: &a [*a]",
        b"a: " + b"9" * 5000,
    ],
    ids=["lists", "items", "keys", "mappings", "itself", "digits"],
)
def test_hostile_files_are_told_and_end_nothing(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    loads_or_tells(path)
