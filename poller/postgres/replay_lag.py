"""Replay lag of a standby, correct on an idle primary and after a lost link."""

from __future__ import annotations

import functools
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from poller.postgres.sql_text import literal

_PING_SLACK_SECONDS = 10.0
"""Longer than a ping and its answer take on a link that works."""
_LEAST_SECONDS = 0.001
"""What is not known to be in sync never reads 0, whatever two servers' clocks say."""
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
    """How far one server was behind when it was asked."""

    seconds: float | None
    """Since when something the primary has committed may be missing; 0 is in sync, None is unknown."""
    data_age: float | None
    """How old, at most, the newest state of the primary is that is certainly shown; None is unknown."""
    standby: bool
    timeline: int | None
    """None where the server does not tell."""
    why: str
    """The rule that decided, in words."""


@functools.cache
def lag_query(*, brief: bool = False) -> str:
    """The one SELECT whose one JSON value `LagMeter.read` understands: PostgreSQL 14 and later, any role.

    A `brief` one takes the server half the time. It omits what cannot change while the server process runs,
    and the control file, whose timeline a connected WAL receiver knows as well: see `LagMeter.brief`.

    - What raises where it does not belong stands in a CASE, which PostgreSQL does not enter: the pause state
      on a primary, the WAL file's name on a standby, everything about WAL on Aurora, whose readers share
      their primary's storage and refuse it ("not currently supported for Aurora").
    - A function that must not be executed raises even in a CASE not entered, as it is checked when the
      statement starts; and one that does not exist does not parse. Those (the control file's, Aurora's) go
      through `ts_stat`, which is given its statement as a text, and only after a look at the privilege.
    - What was received is read before what was replayed: the other way round, a busy standby that is in sync
      would look behind by what came in between.
    - `clock_timestamp()`, as `now()` is the start of the transaction.
    - Every name is qualified: see `poller.postgres.sql_text`.
    - `pg_settings` would make a row of every parameter to find one.
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
    """An expression for the column `found` of `sql` as text; NULL where a function may not be executed.

    `ts_stat` is the one function of every PostgreSQL that runs a text as a query and hands back what it found
    (`query_to_xml` is refused by servers built without libxml): each lexeme, here the value as it is.
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
    """At `at` (our monotonic clock) the primary had written up to `position` and not beyond."""

    at: float
    position: int


class LagMeter:
    """Makes a lag out of each answer, with a memory of what the answers before it said.

    Neither formula in wide use is right. `now() - pg_last_xact_replay_timestamp()` grows on an idle primary,
    where nothing is missing. `CASE WHEN receive_lsn = replay_lsn THEN 0` says 0 for a dead primary, as what
    never arrived is not seen to be missing. The rules here, first match first:

    1. A primary is behind nothing: 0, and all memory is forgotten (a later standby is another one).
    2. Aurora shares storage and has no receiver: it says the lag itself (AWS, "aurora_replica_status").
    3. In sync is a standby whose receiver streams, has heard from the primary since it connected, and whose
       replay has reached what was received as well as what the primary said it had written
       (`latest_end_lsn`; on a slow link it is ahead of what was received). The lag is 0, and the data are as
       old as the last message at most: what was committed after it may still be under way.
       Until the first message both of its times are when the receiver started (walreceiver.c), and positions
       are those of the connection before, so nothing is concluded from them.
    4. A receiver that has heard nothing for half of wal_receiver_timeout has asked the primary to answer
       (PostgreSQL manual, "wal_receiver_timeout"). No answer 10 s later is a link that swallows everything,
       and is treated as one that is cut.
    5. Otherwise something is missing, or nobody knows, and the lag is the time since all was there. Two
       witnesses, of which the younger is believed, as each is true by itself:
       the last replayed transaction's commit time (by two servers' clocks, so they should agree); and the
       youngest mark that replay has reached. A mark is made at every look at a live link and says "then, the
       primary had written up to here"; PostgreSQL's sender measures with the same means (LagTracker in
       walsender.c). So after an idle hour one transaction that is received and not yet replayed reads as the
       time since the last look, not as an hour, and a paused replay counts from when the first thing was
       missing. A caller that would act on a lag does well to look twice: the first look's mark makes
       the second one sharp.
       Never 0 in this rule.
    6. None where neither witness is there: a standby that was started while its primary is away.

    A standby started anew may show an older state than before, so a mark counts only while replay is at or
    past its position. Marks are forgotten with another server (its own address, port and system identifier,
    as a host name may lead to several) and with a later timeline, on which a position is another history.
    An earlier timeline on the same server is none: without a receiver, only the control file tells it,
    which is late.

    Without pg_monitor the receiver's row is there and empty: rules 3 and 4 then go without the primary's own
    position, the first message and the age (None), so a link that swallows everything is seen only
    when the receiver gives up, after wal_receiver_timeout.
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
        """Whether a brief look may be enough, because the whole look before it has told the rest."""
        return self._process is not None

    def covers(self, answer: bytes) -> bool:
        """Whether a brief look is enough to be read; if not, take a whole one.

        It is if the same server process answers (a pooler may lead to another one), and if the timeline is
        known without the control file.
        """
        told: dict[str, Any] = json.loads(answer.decode(errors="replace"))
        return _process(told) == self._process and _is_self_contained(told)

    def read(self, answer: bytes, now: float) -> Lag:
        """Read what `lag_query` came to at `now`, in seconds of a monotonic clock."""
        told: dict[str, Any] = json.loads(answer.decode(errors="replace"))
        receiver: dict[str, Any] | None = told["receiver"]
        if _process(told) != self._process:
            self._system = told["system"]
            self._process = _process(told)
        if told["aurora"] or not _is_self_contained(told):
            self._process = None
        if not told["standby"]:
            self._forget()
            return Lag(0.0, 0.0, False, _integer(told["timeline"]), "a primary is behind nothing")
        timeline = self._recognised((told["address"], self._system), _timeline(told, receiver))
        if told["aurora"]:
            return _aurora(told["aurora_ms"])
        replayed = told["replayed"] or 0
        state, alive = _link(receiver, told["ping"])
        age: float | None = receiver["age"] if receiver else None
        if receiver is not None and alive:
            end = max(told["received"] or 0, receiver["end"] or 0)
            self._mark(now - (age or 0.0), end)
        self._pass(replayed)
        if receiver is not None and alive and not self._ahead:
            paused = ", though replay is paused" if told["pause"] != "not paused" else ""
            return Lag(0.0, age, True, timeline, f"all that is known of is replayed{paused}")
        if told["pause"] != "not paused":
            state = f"replay is paused and {state}"
        return self._behind(told["replay_age"], now, timeline, state)

    def _behind(self, replay_age: float | None, now: float, timeline: int | None, state: str) -> Lag:
        witnesses = []
        if replay_age is not None:
            witnesses.append((replay_age, "since the last replayed transaction"))
        if self._passed is not None:
            witnesses.append((now - self._passed.at, "since it was last seen in sync"))
        if not witnesses:
            return Lag(None, None, True, timeline, f"{state}, and nothing is known of before")
        seconds, since = min(witnesses)
        seconds = max(_LEAST_SECONDS, seconds)
        return Lag(seconds, seconds, True, timeline, f"{state}: {since}")

    def _mark(self, at: float, position: int) -> None:
        for earlier in (self._passed, *self._ahead):
            # A receiver that has just connected may not know what an earlier one did.
            position = max(position, earlier.position if earlier else 0)
        if self._ahead and self._ahead[-1].position == position:
            self._ahead.pop()
        self._ahead.append(_Mark(at, position))
        if len(self._ahead) > _MARKS:
            # A replay that stands still for long: fewer marks make a lag coarser, never smaller.
            self._ahead = deque(list(self._ahead)[::2])

    def _pass(self, replayed: int) -> None:
        while self._ahead and self._ahead[0].position <= replayed:
            self._passed = self._ahead.popleft()
        if self._passed is not None and self._passed.position > replayed:
            self._passed = None

    def _recognised(self, server: tuple[str, str | None], timeline: int | None) -> int | None:
        """Forget what does not concern this server on this timeline; return its timeline."""
        later = timeline is not None and self._timeline is not None and timeline > self._timeline
        if server != self._server or later:
            self._forget()
        self._server = server
        self._timeline = max((n for n in (timeline, self._timeline) if n is not None), default=None)
        return self._timeline

    def _forget(self) -> None:
        self._server = self._timeline = self._passed = None
        self._ahead.clear()


def _process(told: dict[str, Any]) -> tuple[str, float]:
    """The server process that answered: no two have started at one address in the same microsecond."""
    return told["address"], told["started"]


def _is_self_contained(told: dict[str, Any]) -> bool:
    """Whether the timeline is certain without the control file: a primary's, or a connected receiver's."""
    receiver = told["receiver"]
    return not told["standby"] or (receiver is not None and receiver["timeline"] is not None)


def _link(receiver: dict[str, Any] | None, ping: float | None) -> tuple[str, bool]:
    """What to say of the link to the primary, and whether it is known (or, unseen, taken) to be alive."""
    if receiver is None:
        return "no WAL receiver runs", False
    status, age = receiver["status"], receiver["age"]
    if status is None:
        # Not for our eyes. That there is a row says that a receiver has connected.
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
        return Lag(None, None, True, None, "aurora_replica_status() does not tell")
    seconds = max(0.0, float(milliseconds) / 1000)
    return Lag(seconds, seconds, True, None, "by aurora_replica_status()")


def _timeline(told: dict[str, Any], receiver: dict[str, Any] | None) -> int | None:
    known = [_integer(told["timeline"]), receiver["timeline"] if receiver else None]
    return max((number for number in known if number is not None), default=None)


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)
