"""Liveness and readiness of a poller, derived from its heartbeat file.

*Alive*: the process exists, its heartbeat is recent, and each of its loops (scheduler, worker, push) makes
progress. An unreachable database or collector or an invalid query file does not change this: a restart would
fix none of them and would lose the data in memory.

*Ready*: alive, and the first poll of every query has ended, with any result, except for queries with a
`schedule`. This condition stays met.
A sidecar that is not ready takes its whole pod out of service, so readiness depends only on the poller.

This module imports only a small part of the standard library, because probes run it every few seconds.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from poller.model.files import read_json

MAX_AGE_SECONDS = 90.0
"""Age in seconds above which a heartbeat is too old; three beats are missing by then."""
MAX_BYTES = 4 << 20
"""Maximum size of a heartbeat that is read; the poller writes at most a third of it."""
REMEDY = "set POLLER_HEALTH_FILE to a path of its own for each poller"
_MOST_NAMES = 10
_FILE = "heartbeat.json"


class HealthResult(NamedTuple):
    """A result, and its reason in one line."""

    good: bool
    why: str


def places(file: str | None, state_dir: str | Path | None) -> list[Path]:
    """Return the possible paths of the heartbeat, the preferred path first.

    The path is `file` (POLLER_HEALTH_FILE), or else a file in `state_dir`, or else a file in a private
    folder of the user. That folder is in TMPDIR or /tmp, or in /dev/shm, where a container can write even if
    its /tmp is read-only.
    """
    if file:
        return [Path(file)]
    if state_dir:
        return [Path(state_dir) / _FILE]
    bases = (os.environ.get("TMPDIR") or "/tmp", "/dev/shm")  # noqa: S108 - a folder there is seen to be ours
    return [Path(base) / f"obscura-poller-{os.getuid()}" / _FILE for base in bases]


def details_path(heartbeat: Path) -> Path:
    """Return the path of the file with the status of every target, which only `poller watch` reads."""
    return heartbeat.with_name(f"{heartbeat.stem}-details{heartbeat.suffix}")


def is_own_folder(folder: Path) -> bool:
    """Return whether `folder` is this user's folder and no link; any user may create a folder in /tmp."""
    try:
        state = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()


def clock() -> float:
    """Return the seconds since the system's start, including sleep; equal in all processes and never set."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def process_namespace() -> str | None:
    """Return the id of the namespace of process ids; None if the system has none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def read(candidates: list[Path]) -> dict[str, Any] | str:
    """Return the youngest heartbeat of `candidates`, or the reason why there is none."""
    heartbeats: list[dict[str, Any]] = []
    troubles = []
    for path in candidates:
        if len(candidates) > 1 and not is_own_folder(path.parent):
            continue
        try:
            heartbeats.append(_checked(read_json(path, MAX_BYTES)))
        except FileNotFoundError:
            continue
        except OSError as error:
            troubles.append(f"{path} cannot be read: {error.strerror}")
        except (ValueError, TypeError, KeyError, ArithmeticError):
            troubles.append(f"{path} is not a heartbeat")
    if heartbeats:
        return max(heartbeats, key=lambda candidate: candidate["boottime"])
    if troubles:
        return "; ".join(troubles)
    paths = " or ".join(map(str, candidates))
    return f"no heartbeat at {paths}: is a poller running, as this user and with this POLLER_HEALTH_FILE?"


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    beat = {**document, "boottime": float(document["boottime"]), "pid": int(document["pid"])}
    if not math.isfinite(beat["boottime"]) or beat["pid"] <= 0:
        raise ValueError
    return beat


def describe(heartbeat: dict[str, Any]) -> str:
    """Return the poller that wrote a heartbeat: its process id, and its instance if it has one."""
    instance = heartbeat.get("instance")
    return f"process {heartbeat['pid']}" + (f" (instance {instance})" if instance else "")


def judge(
    heartbeat: dict[str, Any] | str, *, ready: bool, now: float, max_age: float = MAX_AGE_SECONDS
) -> HealthResult:
    """Judge whether the poller of a heartbeat is alive (or `ready`) at `now` of `clock`; times in seconds."""
    word = "ready" if ready else "alive"
    if isinstance(heartbeat, str):
        return HealthResult(False, f"not {word}: {heartbeat}")
    why = _dead(heartbeat, now, max_age) or (_unready(heartbeat) if ready else None)
    if why is not None:
        return HealthResult(False, f"not {word}: {why}")
    return HealthResult(True, f"{word}: {_summary(heartbeat, now)}")


def _dead(heartbeat: dict[str, Any], now: float, max_age: float) -> str | None:
    age, pid = now - heartbeat["boottime"], heartbeat["pid"]
    if age < -1.0:
        return "the heartbeat is from before the system was started"
    if heartbeat.get("process_namespace") == process_namespace() and not _exists(pid):
        return f"process {pid} is gone, its last heartbeat was {age:.0f}s ago"
    if age > max_age:
        return (
            f"process {pid} hangs or cannot write its heartbeat: the last one was {age:.0f}s ago, "
            f"the limit is {max_age:g}s"
        )
    stuck = heartbeat.get("stuck")
    return f"process {pid} hangs: {stuck}" if stuck else None


def _unready(heartbeat: dict[str, Any]) -> str | None:
    if heartbeat.get("ready"):
        return None
    ticks = _dict(heartbeat, "ticks")
    states = {name: _dict(ticks, name) for name in ticks}
    waiting = [
        name for name, tick in states.items() if tick.get("last_run") is None and "schedule" not in tick
    ]
    names = ", ".join(waiting[:_MOST_NAMES]) or "all"
    more = heartbeat.get("waiting", len(waiting)) - _MOST_NAMES if waiting else 0
    names += f" and {more} more" if more > 0 else ""
    return f"the first polls are not over; still to come: {names}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # the process belongs to another user
    return True


def _summary(heartbeat: dict[str, Any], now: float) -> str:
    parts = [f"{describe(heartbeat)}, heartbeat {now - heartbeat['boottime']:.0f}s ago"]
    leader, targets = _dict(heartbeat, "leader"), _dict(heartbeat, "targets")
    follows = leader.get("state") == "follower"
    if leader:
        why = f" ({leader.get('why')})" if follows else ""
        parts.append(f"{leader.get('state')} of {leader.get('name')}{why}")
    files = "query files and targets" if targets else "query files"
    if targets and not follows:  # a follower polls none
        parts.append(f"targets: {targets.get('up')} of {targets.get('all')} up")
    if ("queries" in heartbeat or targets) and not follows:  # a heartbeat on a full disk omits them
        words = _dict(heartbeat, "states") or _count(_dict(heartbeat, "queries"))
        queries = ", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "none polled yet"
        parts.append(f"queries: {queries}")
    for key, name in (("export", "export"), ("query_files", files), ("disk", "its disk")):
        if heartbeat.get(key):
            parts.append(f"{name} {heartbeat[key]}")
    if heartbeat.get("shared_with"):
        parts.append(f"{heartbeat['shared_with']} writes the same file; {REMEDY}")
    return "; ".join(parts)


def _count(queries: dict[str, Any]) -> Counter[str]:
    # States such as `failed(timeout)` are counted by their first word.
    return Counter(str(state).partition("(")[0] for state in queries.values())


def _dict(heartbeat: dict[str, Any], key: str) -> dict[str, Any]:
    value = heartbeat.get(key)
    return value if isinstance(value, dict) else {}
