"""Rules about several settings: a single database, the leader election and shards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from poller.config.environment import Environment
from poller.config.settings import KUBERNETES, SETTINGS, SettingSource
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.shards import MAX_SHARDS, SHARD

_LEASE = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""Names of objects in Kubernetes (RFC 1123 subdomain)."""
_AN_ELECTION = SETTINGS["leader_election"].example


def single_database_problems(
    values: Mapping[str, Any], sources: Mapping[str, SettingSource], environment: Environment
) -> Iterator[Diagnostic]:
    """Return the settings of a single database, which the targets replace."""
    for name in ("database_url", "password_command"):
        # A file that cannot be read gives no value.
        of_file = environment.file_of(name) is not None and name not in sources
        if values.get(name) or of_file:
            where = f"{SETTINGS[name].variables[0]}_FILE" if of_file else sources[name].name
            message = (
                f"cannot be combined with {sources['targets'].name}; unset it, or write it to the targets"
            )
            yield invalid(where, message)


def election_problems(election: str, where: str, has_targets: bool) -> Iterator[Diagnostic]:
    """Return what is wrong with the setting of the leader election; no message repeats it."""
    election = election.strip()
    if election.startswith(KUBERNETES):
        if not _LEASE.fullmatch(election.removeprefix(KUBERNETES)):
            message = (
                "has no valid name of a Lease: lower-case letters, digits, - and ., at most 253 characters; "
                "write one like kubernetes:obscura-poller"
            )
            yield invalid(where, message)
    elif not election.startswith(("postgresql://", "postgres://")):
        message = f"begins with neither postgresql:// nor {KUBERNETES}; write one like {_AN_ELECTION}"
        yield invalid(where, message)
    if not has_targets:
        message = (
            "needs POLLER_TARGETS: series are then named after their target and not after the poller, so "
            "they stay the same when another poller leads; write the database to a targets file"
        )
        yield invalid(where, message)


def shard_problems(values: Mapping[str, Any], sources: Mapping[str, SettingSource]) -> Iterator[Diagnostic]:
    """Return the contradictions of the settings about shards."""
    text, count = (str(values.get(name) or "").strip() for name in ("shard", "shards"))
    if not text and not count:
        return
    where = sources["shard" if text else "shards"].name
    if not values.get("targets"):
        message = "needs POLLER_TARGETS, because a single database cannot be shared; set it, or unset this"
        yield invalid(where, message)
    if not text:
        message = "is set without POLLER_SHARD; write the index of this shard, like POLLER_SHARD=2"
        yield invalid(where, message)
        return
    if re.fullmatch(SHARD, text) is None:
        return  # it is reported like every other invalid value
    index, of = (int(number) if number else None for number in text.partition("/")[::2])
    if of is not None and count:
        message = f"cannot be combined with {text!r}, which has the number of shards; unset one of them"
        yield invalid(sources["shards"].name, message)
    if of is None and not count:
        message = f"{text!r} has no number of shards; write one like {text}/{max(5, (index or 0) + 1)}, or "
        message += "set POLLER_SHARDS"
        yield invalid(where, message)
    if max((index or 0) + 1, of or 0) > MAX_SHARDS:
        yield invalid(where, f"{text!r} is too large; write at most {MAX_SHARDS - 1}/{MAX_SHARDS}")
    elif of == 0:
        yield invalid(where, f"{text!r} has 0 as the number of shards; write one like 0/5")
    elif of is not None and (index or 0) >= of:
        message = (
            f"{text!r} is not a shard, because they are counted from 0; the last of {of} is {of - 1}/{of}"
        )
        yield invalid(where, message)
