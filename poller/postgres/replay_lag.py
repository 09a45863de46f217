"""Replay lag of a standby, correct on an idle primary and after a lost link."""

from __future__ import annotations

import functools
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from poller.postgres.sql_text import literal

_PING_SLACK_SECONDS = 10.0
"""Longer than a ping and its answer take on a working link."""
_LEAST_SECONDS = 0.001
"""Minimum lag of a standby that is not known to be in sync, even if the two servers' clocks differ."""
_MARKS = 64

_AURORA = """\
SELECT CASE WHEN session_id OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID' THEN 0
  ELSE replica_lag_in_msec END AS found
FROM pg_catalog.aurora_replica_status()
WHERE server_id OPERATOR(pg_catalog.=) pg_catalog.aurora_db_instance_identifier()"""
_CONTROL_TIMELINE = """\
SELECT greatest(timeline_id, min_recovery_end_timeline) AS found
FROM pg_catalog.pg_control_checkpoint(), pg_catalog.pg_control_recovery()"""
_SYSTEM = "SELECT system_identifier AS found FROM pg_catalog.pg_control_system()"


@dataclass(frozen=True, slots=True)
class Lag:
    """Replay lag of one server at the time of the reading."""

    seconds: float | None
    """Maximum age of committed changes that may be missing; 0 means in sync, None means unknown."""
    data_age: float | None
    """Upper bound on the age of the primary's state that the values reflect, in seconds; None is unknown."""
    standby: bool
    timeline: int | None
    """None if the server does not report it."""
    why: str
    """The rule that decided, as text."""


@functools.cache
def lag_query(*, brief: bool = False) -> str:
    """Return the SELECT whose single JSON value `LagMeter.read` reads: PostgreSQL 14 and later, any role.

    A `brief` query takes the server half the time. It omits values that cannot change while the server
    process runs, and the control file. A connected WAL receiver also reports the timeline of the control
    file: see `LagMeter.brief`.

    - A function that raises an error on some servers is inside a CASE, which PostgreSQL does not enter there:
      the pause state on a primary, the WAL file's name on a standby, and everything about WAL on Aurora.
      Aurora's readers share their primary's storage and reject WAL functions ("not currently supported for
      Aurora").
    - A function without EXECUTE privilege raises an error even in a CASE that is not entered, because
      PostgreSQL checks it when the statement starts. A function that does not exist fails at parsing.
      Functions of the control file and of Aurora are therefore called through `ts_stat`, which takes its
      statement as text, and only after a check of the privilege.
    - The received position is read before the replayed one. In the other order, WAL that arrives in between
      would make a busy standby that is in sync seem to lag.
    - The query uses `clock_timestamp()`, because `now()` is the start of the transaction.
    - Every name is qualified: see `poller.postgres.sql_text`.
    - The query does not use `pg_settings`, which builds a row for every parameter to find one.
    """
    aurora = "false" if brief else "pg_catalog.to_regprocedure('pg_catalog.aurora_version()') IS NOT NULL"
    aurora_lag = "NULL" if brief else _guarded(_AURORA, "aurora_replica_status()")
    system = "NULL" if brief else _guarded(_SYSTEM, "pg_control_system()")
    timeline = (
        "NULL" if brief else _guarded(_CONTROL_TIMELINE, "pg_control_checkpoint()", "pg_control_recovery()")
    )
    return f"""\
SELECT pg_catalog.json_build_object(
  'standby', recovering,
  'aurora', aurora,
  'aurora_ms', CASE WHEN aurora THEN {aurora_lag} END,
  'address', pg_catalog.concat_ws(' ', pg_catalog.host(pg_catalog.inet_server_addr()),
    pg_catalog.current_setting('port')),
  'started', extract(epoch FROM pg_catalog.pg_postmaster_start_time()),
  'system', CASE WHEN NOT aurora THEN {system} END,
  'receiver', CASE WHEN recovering AND NOT aurora THEN (
    SELECT pg_catalog.json_build_object(
      'status', status,
      'heard', NOT coalesce(last_msg_send_time OPERATOR(pg_catalog.=) last_msg_receipt_time,
        last_msg_send_time IS NULL AND last_msg_receipt_time IS NULL),
      'age', extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) last_msg_receipt_time),
      'end', latest_end_lsn OPERATOR(pg_catalog.-) '0/0',
      'timeline', received_tli)
    FROM pg_catalog.pg_stat_wal_receiver) END,
  'ping', extract(epoch FROM pg_catalog.current_setting('wal_receiver_timeout', true)::pg_catalog.interval)
    OPERATOR(pg_catalog./) 2,
  'received', CASE WHEN recovering AND NOT aurora
    THEN pg_catalog.pg_last_wal_receive_lsn() OPERATOR(pg_catalog.-) '0/0' END,
  'replayed', CASE WHEN recovering AND NOT aurora
    THEN pg_catalog.pg_last_wal_replay_lsn() OPERATOR(pg_catalog.-) '0/0' END,
  'replay_age', CASE WHEN recovering AND NOT aurora THEN extract(epoch FROM
    pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp()) END,
  'pause', CASE WHEN recovering AND NOT aurora THEN pg_catalog.pg_get_wal_replay_pause_state() END,
  'timeline', CASE
    WHEN aurora THEN NULL
    WHEN NOT recovering THEN ('x' OPERATOR(pg_catalog.||)
      pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
      )::bit(32)::int::pg_catalog.text
    ELSE {timeline} END)
FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovering, {aurora} AS aurora OFFSET 0) AS server"""


def _guarded(sql: str, *functions: str) -> str:
    """Return an expression for the column `found` of `sql` as text; NULL if a function may not be executed.

    `ts_stat` is the only function in every PostgreSQL that runs a text as a query and returns its result
    (servers built without libxml reject `query_to_xml`). It returns each lexeme, here the unchanged value.
    """
    text = (
        f"SELECT pg_catalog.array_to_tsvector(ARRAY[found::pg_catalog.text]) FROM ({sql}) AS it "
        "WHERE found IS NOT NULL"
    )
    allowed = " AND ".join(
        "pg_catalog.has_function_privilege("
        f"pg_catalog.to_regprocedure('pg_catalog.{name}')::pg_catalog.oid, 'EXECUTE')"
        for name in functions
    )
    stat = f"pg_catalog.ts_stat({literal(' '.join(text.split()))})"
    return f"CASE WHEN {allowed} THEN (SELECT pg_catalog.min(word) FROM {stat}) END"


@dataclass(frozen=True, slots=True)
class _Mark:
    """At `at` (the poller's monotonic clock), the primary had written WAL exactly up to `position`."""

    at: float
    position: int


class LagMeter:
    """Computes the replay lag from each answer and from a memory of earlier answers.

    Neither of the two common formulas is correct. `now() - pg_last_xact_replay_timestamp()` grows on an idle
    primary, although no change is missing. `CASE WHEN receive_lsn = replay_lsn THEN 0` reports 0 if the
    primary is dead, because WAL that never arrived is not counted. The meter uses these rules, and the first
    match decides:

    1. A primary has lag 0. The meter deletes its memory, because a later standby is a different one.
    2. Aurora shares storage and has no receiver. It reports the lag itself (AWS, "aurora_replica_status").
    3. A standby is in sync under three conditions: its receiver streams, the receiver has had a message from
       the primary since it connected, and replay has reached both the received position and the position
       that the primary reported as written (`latest_end_lsn`; on a slow link it is ahead of the received
       one). The lag is 0. The data age is at most the age of the last message, because later commits may
       still be in transit.
       Until the first message, both message times are the start time of the receiver (walreceiver.c), and
       the positions are those of the previous connection. So the meter draws no conclusion from them.
    4. A receiver without a message for half of wal_receiver_timeout has asked the primary to answer
       (PostgreSQL manual, "wal_receiver_timeout"). If no answer arrives within 10 s, the link drops packets
       and counts as cut.
    5. Otherwise changes are missing or may be missing. The lag is the time since the standby had all changes.
       There are two estimates. Each one is an upper bound, so the smaller one is used:
       the age of the last replayed transaction's commit (by the clocks of two servers, which should agree);
       and the age of the newest mark that replay has reached. Each reading on a live link sets a mark: "at
       this time, the primary had written up to this position". PostgreSQL's sender measures in the same way
       (LagTracker in walsender.c). So if one transaction is received but not yet replayed after an idle hour,
       the lag is the time since the last reading, not an hour. If replay is paused, the lag starts when the
       first change was missing. A caller that acts on a lag should read twice, because the mark of the first
       reading makes the second one precise.
       The lag is never 0 under this rule.
    6. The lag is None without both estimates: the standby was started while its primary was away.

    A restarted standby may show an older state than before. So a mark counts only while replay has reached
    its position. The meter deletes its marks if the server changes (identified by its own address, port and
    system identifier, because a host name may resolve to several servers). It also deletes them on a later
    timeline, where a position belongs to another history. An earlier timeline on the same server does not
    count as a change: without a receiver, only the control file contains the timeline, and it is late.

    Without pg_monitor, the receiver's row exists but is empty. Rules 3 and 4 then work without the primary's
    written position, the first message and the message age (None). So a link that drops packets is noticed
    only when the receiver stops, after wal_receiver_timeout.
    """

    def __init__(self) -> None:
        self._server: tuple[str, str | None] | None = None
        self._process: tuple[str, float] | None = None
        self._system: str | None = None
        self._timeline: int | None = None
        self._passed: _Mark | None = None
        self._ahead: deque[_Mark] = deque()

    @property
    def brief(self) -> bool:
        """Whether a brief query may be enough, because an earlier full query has read the other values."""
        return self._process is not None

    def covers(self, answer: bytes) -> bool:
        """Return whether the answer to a brief query is enough; if not, send the full query.

        It is enough if the same server process answers (a pooler may switch to another one), and if the
        timeline is known without the control file.
        """
        lag_row: dict[str, Any] = json.loads(answer.decode(errors="replace"))
        return _process(lag_row) == self._process and _is_self_contained(lag_row)

    def read(self, answer: bytes, now: float) -> Lag:
        """Read the result of `lag_query` that arrived at `now` (monotonic seconds)."""
        lag_row: dict[str, Any] = json.loads(answer.decode(errors="replace"))
        receiver: dict[str, Any] | None = lag_row["receiver"]
        if _process(lag_row) != self._process:
            self._system = lag_row["system"]
            self._process = _process(lag_row)
        if lag_row["aurora"] or not _is_self_contained(lag_row):
            self._process = None
        if not lag_row["standby"]:
            self._forget()
            return Lag(0.0, 0.0, False, _integer(lag_row["timeline"]), "a primary has no replay lag")
        timeline = self._recognised((lag_row["address"], self._system), _timeline(lag_row, receiver))
        if lag_row["aurora"]:
            return _aurora(lag_row["aurora_ms"])
        replayed = lag_row["replayed"] or 0
        state, alive = _link(receiver, lag_row["ping"])
        age: float | None = receiver["age"] if receiver else None
        if receiver is not None and alive:
            end = max(lag_row["received"] or 0, receiver["end"] or 0)
            self._mark(now - (age or 0.0), end)
        self._pass(replayed)
        if receiver is not None and alive and not self._ahead:
            paused = ", though replay is paused" if lag_row["pause"] != "not paused" else ""
            return Lag(0.0, age, True, timeline, f"everything received is replayed{paused}")
        if lag_row["pause"] != "not paused":
            state = f"replay is paused and {state}"
        return self._lag_of_replay(lag_row["replay_age"], now, timeline, state)

    def _lag_of_replay(self, replay_age: float | None, now: float, timeline: int | None, state: str) -> Lag:
        witnesses = []
        if replay_age is not None:
            witnesses.append((replay_age, "since the last replayed transaction"))
        if self._passed is not None:
            witnesses.append((now - self._passed.at, "since it was last seen in sync"))
        if not witnesses:
            return Lag(None, None, True, timeline, f"{state}, and its earlier state is unknown")
        seconds, since = min(witnesses)
        seconds = max(_LEAST_SECONDS, seconds)
        return Lag(seconds, seconds, True, timeline, f"{state}: {since}")

    def _mark(self, at: float, position: int) -> None:
        for earlier in (self._passed, *self._ahead):
            # A receiver that has just connected may report less than an earlier one did.
            position = max(position, earlier.position if earlier else 0)
        if self._ahead and self._ahead[-1].position == position:
            self._ahead.pop()
        self._ahead.append(_Mark(at, position))
        if len(self._ahead) > _MARKS:
            # Replay has stopped for long: with fewer marks, the lag gets coarser but never smaller.
            self._ahead = deque(list(self._ahead)[::2])

    def _pass(self, replayed: int) -> None:
        while self._ahead and self._ahead[0].position <= replayed:
            self._passed = self._ahead.popleft()
        if self._passed is not None and self._passed.position > replayed:
            self._passed = None

    def _recognised(self, server: tuple[str, str | None], timeline: int | None) -> int | None:
        """Delete marks of another server or an earlier timeline; return the timeline."""
        later = timeline is not None and self._timeline is not None and timeline > self._timeline
        if server != self._server or later:
            self._forget()
        self._server = server
        self._timeline = max((n for n in (timeline, self._timeline) if n is not None), default=None)
        return self._timeline

    def _forget(self) -> None:
        self._server = self._timeline = self._passed = None
        self._ahead.clear()


def _process(lag_row: dict[str, Any]) -> tuple[str, float]:
    """Return the identity of the server process: its address and start time (in microseconds)."""
    return lag_row["address"], lag_row["started"]


def _is_self_contained(lag_row: dict[str, Any]) -> bool:
    """Return whether the timeline is certain without the control file: primary or connected receiver."""
    receiver = lag_row["receiver"]
    return not lag_row["standby"] or (receiver is not None and receiver["timeline"] is not None)


def _link(receiver: dict[str, Any] | None, ping: float | None) -> tuple[str, bool]:
    """Return the state of the link to the primary as text, and whether it is alive or assumed to be."""
    if receiver is None:
        return "no WAL receiver runs", False
    status, age = receiver["status"], receiver["age"]
    if status is None:
        # The role may not see the values. The row exists, so a receiver has connected.
        return "not all that was received is replayed", True
    if status != "streaming":
        return f"the WAL receiver is {status}", False
    if not receiver["heard"] or receiver["end"] is None:
        return "the WAL receiver has just connected", False
    if ping and age is not None and age > ping + _PING_SLACK_SECONDS:
        return f"the primary has been silent for {age:.0f}s", False
    return "not all that the primary wrote is replayed", True


def _aurora(milliseconds: str | None) -> Lag:
    if milliseconds is None:
        return Lag(None, None, True, None, "aurora_replica_status() does not report it")
    seconds = max(0.0, float(milliseconds) / 1000)
    return Lag(seconds, seconds, True, None, "by aurora_replica_status()")


def _timeline(lag_row: dict[str, Any], receiver: dict[str, Any] | None) -> int | None:
    known = [_integer(lag_row["timeline"]), receiver["timeline"] if receiver else None]
    return max((number for number in known if number is not None), default=None)


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)
