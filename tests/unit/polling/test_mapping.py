"""Rows become exact samples, or are rejected, counted and named."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model.errors import PollError
from poller.model.query import MAX_ATTRIBUTE_LENGTH, QueryDefinition
from poller.model.result import RejectedRow
from poller.model.rows import Column, Limit, RowCollector, Rows
from poller.polling.mapping import MOST_REJECTED_ROWS, Mapped, to_samples
from tests.bed.definitions import a_metric, a_query

BOOL, INT8, INT2, INT4, OID, TEXT, FLOAT4, FLOAT8, NUMERIC = 16, 20, 21, 23, 26, 25, 700, 701, 1700


def rows(*values: bytes | None, oid: int = INT8, beyond: int = 0) -> Rows:
    return Rows((Column("n", oid),), [(value,) for value in values], beyond)


def labelled(*values: tuple[bytes | None, bytes | None], oid: int = TEXT) -> Rows:
    return Rows((Column("n", INT8), Column("kind", oid)), list(values))


def mapped(result: Rows, **metric: Any) -> Mapped:
    return to_samples(a_query(metrics=(a_metric(**metric),)), result, at=0.0)


def values(result: Rows, **metric: Any) -> list[int | float]:
    return [sample.value for sample in mapped(result, **metric).samples]


def by_kind(result: Rows, **metric: Any) -> Mapped:
    return mapped(result, attribute_columns=("kind",), **metric)


def refusal(result: Rows, query: QueryDefinition | None = None) -> str:
    with pytest.raises(PollError) as caught:
        to_samples(query or a_query(), result, at=0.0)
    assert caught.value.kind == "mismatch"
    return caught.value.message


# --- numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oid", "text", "value"),
    [
        (INT2, b"-32768", -32768),
        (INT4, b"2147483647", 2147483647),
        (INT8, b"9223372036854775807", 2**63 - 1),
        (INT8, b"-9223372036854775808", -(2**63)),
        (OID, b"4294967295", 4294967295),
        (NUMERIC, b"9007199254740993", 9007199254740993),
        (NUMERIC, b"9223372036854775807", 2**63 - 1),
        (NUMERIC, b"-9223372036854775808", -(2**63)),
        (NUMERIC, b"42.000", 42),
        (NUMERIC, b"0.00", 0),
    ],
)
def test_an_integral_value_within_64_bits_stays_an_integer(oid: int, text: bytes, value: int) -> None:
    (got,) = values(rows(text, oid=oid))
    assert (type(got), got) == (int, value)


@pytest.mark.parametrize(
    ("oid", "text", "value"),
    [
        (NUMERIC, b"0.1", 0.1),
        (NUMERIC, b"-2.5", -2.5),
        (NUMERIC, b"9223372036854775808", 2.0**63),
        (NUMERIC, b"-9223372036854775809", -(2.0**63)),
        (NUMERIC, b"9" * 300, 1e300),
        (NUMERIC, b"9223372036854775807.5", 2.0**63),
        (FLOAT4, b"0.1", 0.1),
        (FLOAT8, b"1.7976931348623157e+308", 1.7976931348623157e308),
        (FLOAT8, b"5e-324", 5e-324),
        (FLOAT8, b"3", 3.0),
    ],
)
def test_a_fraction_or_a_number_beyond_64_bits_becomes_the_nearest_float(
    oid: int, text: bytes, value: float
) -> None:
    (got,) = values(rows(text, oid=oid))
    assert (type(got), got) == (float, value)


@pytest.mark.parametrize("oid", [FLOAT4, FLOAT8, NUMERIC])
@pytest.mark.parametrize(
    ("text", "reason"), [(b"NaN", "nan"), (b"Infinity", "infinite"), (b"-Infinity", "infinite")]
)
def test_a_value_that_is_not_finite_is_counted_and_not_exported(oid: int, text: bytes, reason: str) -> None:
    result = mapped(rows(b"1", text, oid=oid), attribute_columns=())
    assert [sample.value for sample in result.samples] == [1]
    assert result.rejected == {reason: 1}


def test_a_numeric_beyond_every_float_is_infinite_and_not_exported() -> None:
    result = mapped(rows(b"1" + b"0" * 400, oid=NUMERIC))
    assert (result.samples, result.rejected) == ((), {"infinite": 1})


# --- NULL ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oid", "text"), [(INT8, b"-1"), (NUMERIC, b"-0.5"), (FLOAT8, b"-1e-300"), (NUMERIC, b"-1e400")]
)
def test_a_negative_counter_is_counted_and_not_exported(oid: int, text: bytes) -> None:
    outcome = mapped(rows(text, oid=oid), type="counter")
    assert (outcome.samples, outcome.rejected) in (((), {"negative": 1}), ((), {"infinite": 1}))
    assert len(mapped(rows(text, oid=oid), type="updowncounter").samples) == (text != b"-1e400")


def test_a_counter_of_zero_is_exported() -> None:
    assert values(rows(b"0"), type="counter") == [0]
    assert values(rows(b"-0", oid=FLOAT8), type="counter") == [0.0]


def test_null_is_dropped_and_counted_by_default() -> None:
    result = mapped(rows(None))
    assert (result.samples, result.rejected) == ((), {"null": 1})


def test_null_is_an_integer_zero_with_on_null_zero() -> None:
    (got,) = values(rows(None, oid=FLOAT8), on_null="zero")
    assert (type(got), got) == (int, 0)


def test_null_fails_the_query_with_on_null_fail() -> None:
    query = a_query(metrics=(a_metric("waiting", on_null="fail"),))
    assert refusal(rows(b"1", None), query) == "column 'n' is NULL and waiting declares on_null: fail"


# --- columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oid", "message"),
    [
        (16, "value column 'n' is boolean, not a number; write (n)::int"),
        (25, "value column 'n' is text, not a number; write n::numeric"),
        (1043, "value column 'n' is varchar, not a number; write n::numeric"),
        (1186, "value column 'n' is interval, not a number; write extract(epoch FROM n)"),
        (1082, "value column 'n' is date, not a number; write extract(epoch FROM n)"),
        (1114, "value column 'n' is timestamp, not a number; write extract(epoch FROM n)"),
        (1184, "value column 'n' is timestamptz, not a number; write extract(epoch FROM n)"),
        (790, "value column 'n' is money, not a number; write n::numeric"),
        (3802, "value column 'n' is jsonb, not a number; write (n #>> '{}')::numeric"),
        (600, "value column 'n' is point, not a number; write n[0]"),
        (2950, "value column 'n' is uuid, not a number; make it an attribute column, or write count(n)"),
        (
            99999,
            (
                "value column 'n' is of the type with OID 99999, not a number; make it an attribute "
                "column, or write count(n)"
            ),
        ),
    ],
)
def test_a_value_column_of_another_type_is_reported_with_its_type_and_a_cast(oid: int, message: str) -> None:
    assert refusal(rows(b"1", oid=oid)) == message
    assert refusal(rows(oid=oid)) == message, "even without rows"


def test_a_missing_column_is_reported_with_the_existing_columns() -> None:
    result = Rows((Column("a", INT8), Column("b", INT8)), [])
    assert refusal(result) == "column 'n' is missing; the result has a, b"
    assert refusal(Rows((), [])) == "column 'n' is missing; the result has no columns"


def test_a_duplicate_column_is_rejected() -> None:
    result = Rows((Column("n", INT8), Column("n", INT8)), [(b"1", b"2")])
    assert refusal(result) == "column 'n' comes 2 times; rename all but one with AS"


def test_a_duplicate_column_that_is_not_declared_is_ignored() -> None:
    result = Rows((Column("x", TEXT), Column("n", INT8), Column("x", TEXT)), [(b"a", b"7", b"b")])
    assert values(result) == [7]


def test_all_problems_of_the_columns_are_reported_once() -> None:
    metrics = (
        a_metric("a", value_column="x", attribute_columns=("kind",)),
        a_metric("b", value_column="x"),
        a_metric("c"),
    )
    message = refusal(Rows((Column("n", TEXT),), []), a_query(metrics=metrics))
    assert message == (
        "column 'x' is missing; the result has n; column 'kind' is missing; the result has n; "
        "value column 'n' is text, not a number; write n::numeric"
    )


def test_only_the_metric_with_a_non_numeric_column_loses_its_rows() -> None:
    query = a_query(metrics=(a_metric("a"), a_metric("b", value_column="t")))
    result = to_samples(query, Rows((Column("n", INT8), Column("t", TEXT)), [(b"1", b"2")], beyond=3), at=0.0)
    assert [(sample.metric, sample.value) for sample in result.samples] == [("a", 1)]
    assert result.rejected == {"not_a_number": 1, "overflow": 6}
    assert result.advice == "value column 't' is text, not a number; write t::numeric"
    assert result.rejected_rows == (RejectedRow("b", "not_a_number", {"n": "1", "t": "2"}),)


# --- series -------------------------------------------------------------------------------------------


def test_every_row_of_a_duplicate_series_is_rejected_and_no_other() -> None:
    result = by_kind(labelled((b"1", b"a"), (b"2", b"b"), (b"3", b"a"), (b"3", b"a")))
    assert [(sample.value, sample.attributes) for sample in result.samples] == [(2, {"kind": "b"})]
    assert result.rejected == {"duplicate": 3}


def test_two_rows_without_attributes_are_duplicates() -> None:
    assert mapped(rows(b"1", b"1")).rejected == {"duplicate": 2}


def test_the_same_attributes_of_two_metrics_are_not_duplicates() -> None:
    query = a_query(metrics=(a_metric("a"), a_metric("b")))
    assert [(s.metric, s.value) for s in to_samples(query, rows(b"5"), at=0.0).samples] == [
        ("a", 5),
        ("b", 5),
    ]


def test_a_null_attribute_is_omitted() -> None:
    result = by_kind(labelled((b"1", None), (b"2", b"x")))
    assert [sample.attributes for sample in result.samples] == [{}, {"kind": "x"}]


def test_series_of_two_metrics_with_the_same_name_and_attributes_are_duplicates() -> None:
    static = a_metric("things", attributes={"kind": "a"})
    column = a_metric("things", attribute_columns=("kind",), attribute_values={"kind": ("b", "c")})
    outcome = to_samples(a_query(metrics=(static, column)), labelled((b"1", b"c")), at=0.0)
    assert [sample.attributes["kind"] for sample in outcome.samples] == ["a", "c", "b"]
    column = a_metric("things", attribute_columns=("kind",), attribute_values={"kind": ("a", "b", "c")})
    outcome = to_samples(a_query(metrics=(static, column)), labelled((b"1", b"c")), at=0.0)
    assert [sample.attributes["kind"] for sample in outcome.samples] == ["c", "b"], "not a 0 either"
    assert (outcome.rejected, outcome.added) == ({"duplicate": 2}, 2)


def test_an_empty_and_an_absent_attribute_are_duplicates_as_in_prometheus() -> None:
    result = by_kind(labelled((b"1", None), (b"2", b"")))
    assert (result.samples, result.rejected) == ((), {"duplicate": 2})


def test_a_boolean_attribute_is_true_or_false() -> None:
    result = by_kind(labelled((b"1", b"t"), (b"2", b"f"), oid=BOOL))
    assert [sample.attributes for sample in result.samples] == [{"kind": "true"}, {"kind": "false"}]


def test_a_text_attribute_of_t_stays_a_t() -> None:
    assert by_kind(labelled((b"1", b"t"))).samples[0].attributes == {"kind": "t"}


def test_static_attributes_keep_their_types_next_to_those_of_columns() -> None:
    (sample,) = by_kind(
        labelled((b"1", "ä".encode())), attributes={"env": "prod", "shard": 3, "live": True}
    ).samples
    assert sample.attributes == {"kind": "ä", "env": "prod", "shard": 3, "live": True}
    assert sample.attributes["live"] is True


def test_an_attribute_that_is_not_utf8_is_counted() -> None:
    result = by_kind(labelled((b"1", b"\xff"), (b"2", b"ok")))
    assert [sample.value for sample in result.samples] == [2]
    assert result.rejected == {"not_utf8": 1}


def test_an_attribute_that_is_too_long_is_counted() -> None:
    fits, over = "ä".encode() * MAX_ATTRIBUTE_LENGTH, b"x" * (MAX_ATTRIBUTE_LENGTH + 1)
    result = by_kind(labelled((b"1", fits), (b"2", over)))
    assert [sample.value for sample in result.samples] == [1]
    assert result.rejected == {"attribute_too_long": 1}


def test_rows_beyond_max_series_count_for_every_metric() -> None:
    query = a_query(metrics=(a_metric("a"), a_metric("b")))
    assert to_samples(query, rows(b"1", beyond=7), at=0.0).rejected == {"overflow": 14}


def test_no_rows_make_no_samples() -> None:
    assert mapped(rows()) == Mapped((), {})


def test_the_first_rejected_rows_are_retained_for_messages() -> None:
    twins = by_kind(labelled((b"1", b"a"), (None, b"b"), (b"2", b"a"), (b"3", b"\xff")))
    assert twins.rejected_rows == (
        RejectedRow("things", "null", {"n": None, "kind": "b"}),
        RejectedRow("things", "duplicate", {"n": "1", "kind": "a"}),
        RejectedRow("things", "duplicate", {"n": "2", "kind": "a"}),
        RejectedRow("things", "not_utf8", {"n": "3", "kind": "\ufffd"}),
    )
    many = mapped(rows(*[None] * 1000))
    assert (len(many.rejected_rows), many.rejected) == (MOST_REJECTED_ROWS, {"null": 1000})


# --- closed attributes --------------------------------------------------------------------------------

STATES = {"attribute_values": {"kind": ("queued", "sent", "failed")}}


def kinds(result: Mapped) -> dict[Any, int | float]:
    return {sample.attributes.get("kind"): sample.value for sample in result.samples}


def test_a_declared_value_without_a_row_is_zero() -> None:
    result = by_kind(labelled((b"5", b"sent")), attributes={"env": "prod"}, **STATES)
    assert kinds(result) == {"sent": 5, "queued": 0, "failed": 0}
    assert all(sample.attributes["env"] == "prod" for sample in result.samples)
    assert result.added == 2
    assert kinds(by_kind(labelled(), **STATES)) == {"queued": 0, "sent": 0, "failed": 0}, "also without rows"


def test_absent_values_of_a_counter_are_not_zero_and_values_stay_closed() -> None:
    result = labelled((b"7", b"queued"), (b"5", b"lost"))
    outcome = by_kind(result, attribute_values={"kind": ("queued", "sent")}, type="counter")
    assert [(sample.value, sample.attributes) for sample in outcome.samples] == [(7, {"kind": "queued"})]
    assert (outcome.rejected, outcome.added) == ({"undeclared_value": 1}, 0)


def test_an_undeclared_value_is_rejected() -> None:
    result = by_kind(labelled((b"5", b"sent"), (b"1", b"lost"), (b"2", None)), **STATES)
    assert kinds(result) == {"sent": 5, "queued": 0, "failed": 0}
    assert result.rejected == {"undeclared_value": 2}


@pytest.mark.parametrize("bad", [[(None, b"sent")], [(b"1", b"sent"), (b"2", b"sent")]])
def test_a_rejected_row_prevents_zeros(bad: list[tuple[bytes | None, bytes | None]]) -> None:
    assert kinds(by_kind(labelled(*bad), **STATES)) == {"queued": 0, "failed": 0}


def test_an_incomplete_result_has_no_zeros() -> None:
    result = Rows((Column("n", INT8), Column("kind", TEXT)), [(b"5", b"sent")], beyond=1)
    assert kinds(by_kind(result, **STATES)) == {"sent": 5}


def test_each_value_of_an_open_attribute_has_every_declared_value() -> None:
    result = Rows(
        (Column("n", INT8), Column("kind", TEXT), Column("tenant", TEXT)),
        [(b"5", b"sent", b"a"), (b"7", b"queued", b"b")],
    )
    outcome = mapped(
        result, attribute_columns=("kind", "tenant"), attribute_values={"kind": ("queued", "sent")}
    )
    assert {(s.attributes["tenant"], s.attributes["kind"]): s.value for s in outcome.samples} == {
        ("a", "sent"): 5, ("a", "queued"): 0, ("b", "queued"): 7, ("b", "sent"): 0,
    }  # fmt: skip


def test_zeros_do_not_exceed_max_series() -> None:
    metric = a_metric(attribute_columns=("kind",), attribute_values={"kind": ("a", "b", "c")})
    query = a_query(metrics=(metric,), max_series=3)
    full = to_samples(query, labelled((b"1", b"x"), (b"1", b"a")), at=0.0)
    assert [(sample.attributes["kind"], sample.value) for sample in full.samples] == [("a", 1), ("b", 0)]
    assert full.rejected == {"undeclared_value": 1, "overflow": 1}, "samples beyond the limit are counted"


# --- the rows beyond max_series -----------------------------------------------------------------------


def folded(*values: bytes | None, oid: int = INT8, **metric: Any) -> Mapped:
    keeper = RowCollector(Limit(1, fold=("n",)), (Column("n", oid), Column("kind", TEXT)))
    keeper.take([(b"9", b"top")])
    keeper.take([(value, str(number).encode()) for number, value in enumerate(values)])
    return mapped(keeper.rows(), attribute_columns=("kind",), **metric)


def test_the_rows_beyond_the_limit_are_summed_in_a_single_series() -> None:
    result = folded(b"5", b"7", b"9007199254740993", attributes={"env": "prod"})
    assert kinds(result) == {"top": 9, "other": 9007199254741005}
    assert [sample.attributes["env"] for sample in result.samples] == ["prod", "prod"]
    assert (result.folded, result.added, result.rejected) == (3, 1, {})


def test_the_sum_of_decimals_is_exact() -> None:
    assert kinds(folded(b"0.1", b"0.2", oid=NUMERIC))["other"] == 0.3
    assert kinds(folded(b"9007199254740993", b"0.0", oid=NUMERIC))["other"] == 9007199254740993


@pytest.mark.parametrize(
    ("value", "oid", "reason"),
    [(None, INT8, "null"), (b"NaN", FLOAT8, "nan"), (b"Infinity", NUMERIC, "infinite")],
)
def test_an_incomplete_sum_is_not_exported(value: bytes | None, oid: int, reason: str) -> None:
    result = folded(b"5", value, oid=oid)
    assert kinds(result) == {"top": 9}
    assert (result.folded, result.rejected) == (0, {reason: 1, "overflow": 1})


@pytest.mark.parametrize(
    ("values", "oid"),
    [
        ((b"1.7e308", b"1.7e308"), FLOAT8),
        ((b"-1.7e308", b"-1.7e308"), FLOAT8),
        ((b"1.7e308", b"1.7e308", b"-1.7e308"), FLOAT8),
        ((b"1.7e308", b"1.7e308"), NUMERIC),
    ],
)
def test_a_sum_beyond_every_double_is_omitted_and_counted(values: tuple[bytes, ...], oid: int) -> None:
    result = folded(*values, oid=oid)
    assert kinds(result) == {"top": 9}
    assert (result.folded, result.rejected) == (0, {"overflow": len(values)})


def test_a_sum_beyond_64_bits_is_the_nearest_double() -> None:
    assert kinds(folded(b"9223372036854775807", b"1"))["other"] == float(2**63)


def test_null_in_a_sum_follows_on_null() -> None:
    assert kinds(folded(b"5", None, on_null="zero"))["other"] == 5
    with pytest.raises(PollError, match="on_null: fail"):
        folded(b"5", None, on_null="fail")


def test_an_existing_series_named_other_is_unchanged() -> None:
    keeper = RowCollector(Limit(1, fold=("n",)), (Column("n", INT8), Column("kind", TEXT)))
    keeper.take([(b"9", b"other"), (b"1", b"a")])
    result = mapped(keeper.rows(), attribute_columns=("kind",))
    assert (kinds(result), result.rejected) == ({"other": 9}, {"overflow": 1})


# --- the account --------------------------------------------------------------------------------------

texts = st.one_of(
    st.none(),
    st.binary(max_size=12),
    st.integers(-(2**70), 2**70).map(lambda n: str(n).encode()),
    st.floats().map(lambda f: repr(f).encode()),
    st.decimals().map(lambda d: str(d).encode()),
    st.sampled_from([b"NaN", b"Infinity", b"-Infinity", b"t", b"f", b"1e999999999", b"sNaN", b"", b"1_0"]),
)
types = st.sampled_from([BOOL, INT8, INT2, INT4, OID, TEXT, FLOAT4, FLOAT8, NUMERIC, 1186])
names = st.sampled_from(["n", "m", "kind", "other"])


@st.composite
def results(draw: st.DrawFn) -> Rows:
    columns = draw(st.lists(st.builds(Column, names, types), max_size=5))
    row = st.tuples(*[texts] * len(columns))
    limit = Limit(
        draw(st.integers(1, 6)),
        draw(st.sampled_from([(), ("kind",)])),
        draw(st.sampled_from([(), ("n", "m")])),
    )
    keeper = RowCollector(limit, tuple(columns))
    for portion in draw(st.lists(st.lists(row, max_size=4), max_size=4)):
        keeper.take(portion)
    return keeper.rows()


@st.composite
def queries(draw: st.DrawFn) -> QueryDefinition:
    closed = st.sampled_from([{}, {"kind": ("t", "true", "")}, {"kind": ("x",), "other": ("y", "")}])
    metric = st.builds(
        lambda columns, values, static, *names, **more: a_metric(
            *names,
            attributes={name: "x" for name in static if name not in columns},
            attribute_columns=columns,
            attribute_values={name: values[name] for name in values if name in columns},
            **more,
        ),
        st.sets(st.sampled_from(["kind", "other"])).map(tuple),
        closed,
        st.sets(st.sampled_from(["kind", "static"])),
        st.sampled_from(["a", "b"]),
        value_column=st.sampled_from(["n", "m"]),
        on_null=st.sampled_from(["drop", "zero", "fail"]),
    )
    metrics = tuple(draw(st.lists(metric, min_size=1, max_size=3)))
    return a_query(metrics=metrics, max_series=draw(st.sampled_from([6, 9, 1000])))


def check_account(query: QueryDefinition, result: Rows) -> Mapped | None:
    try:
        outcome = to_samples(query, result, at=0.0)
    except PollError:
        return None
    candidates = (len(result.values) + result.beyond) * len(query.metrics)
    assert (
        len(outcome.samples) - outcome.added + outcome.folded + sum(outcome.rejected.values()) == candidates
    )
    series = [(s.metric, frozenset(s.attributes.items())) for s in outcome.samples]
    assert len(set(series)) == len(series)
    for sample in outcome.samples:
        assert type(sample.value) in (int, float)
        assert -(2**63) <= sample.value < 2**63 if type(sample.value) is int else math.isfinite(sample.value)
    return outcome


@pytest.mark.slow
@given(queries(), results())
def test_every_row_of_any_result_is_a_sample_or_counted(query: QueryDefinition, result: Rows) -> None:
    check_account(query, result)


numbers = st.one_of(st.none(), st.integers(-(2**70), 2**70).map(lambda n: str(n).encode()), st.just(b"NaN"))
labels = st.one_of(st.none(), st.binary(max_size=2))


@given(st.lists(st.tuples(numbers, labels), max_size=12), st.integers(0, 5))
def test_well_formed_numbers_never_fail_a_query(values: list[tuple[bytes | None, ...]], beyond: int) -> None:
    result = Rows((Column("n", NUMERIC), Column("kind", TEXT)), values, beyond)
    assert check_account(a_query(metrics=(a_metric(attribute_columns=("kind",)),)), result) is not None
