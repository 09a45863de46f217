"""Leader lock on a Lease of Kubernetes, with the algorithm of client-go's leader election.

A Lease has a holder, which renews it, and a version, which makes every update a compare-and-set. Another
process takes it if it has not changed for its duration. The process counts that time itself, from its first
look at the current version: the times in the Lease come from other machines' clocks and are for people.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from poller.daemon import health
from poller.daemon.kubernetes_api import ApiAnswer, KubernetesApi, LeaseApi, Method, refusal
from poller.model.leader import LockError
from poller.model.printable import one_line

LONGEST_SECONDS = 3600
"""Maximum duration of a Lease that is honoured; a longer one counts as this one."""
_LONGEST_NAME = 253
_MOST_TRANSITIONS = 2**31 - 1
_SHORTEST_TIMEOUT = 0.001


class KubernetesLease:
    """The Lease `lease_name` in the pod's namespace, or in that of the kubeconfig's context."""

    def __init__(
        self,
        lease_name: str,
        instance: str,
        ttl: float,
        *,
        clock: Callable[[], float] = health.clock,
        api: LeaseApi | None = None,
    ) -> None:
        """Prepare the lock, without a request.

        The holder's name is `instance` with a random suffix, because a restarted process or a second one with
        the same name must not take itself for the holder. `ttl` is the lease in seconds; the API has whole
        seconds, so it is rounded up. `clock` returns seconds and is never set.

        Raises ConfigError if the extra is missing or the process has no access to an API server.
        """
        self._name = lease_name
        self._identity = f"{instance[:_LONGEST_NAME]}_{uuid.uuid4().hex}"
        self._duration = math.ceil(ttl)
        self._timeout = min(2.0, ttl / 6)
        self._slack = ttl / 12
        self._clock = clock
        self._api = KubernetesApi(lease_name) if api is None else api
        self._held: _Lease | None = None
        """The Lease as it was last confirmed for this process."""
        self._requested = False
        """Whether the Lease may name this process, confirmed or not."""
        self._seen: tuple[object, ...] = ()
        self._seen_at = -math.inf
        self._holder = ""

    @property
    def name(self) -> str:
        return f"kubernetes:{self._name}"

    @property
    def holder(self) -> str:
        return one_line(self._holder[:_LONGEST_NAME])

    @property
    def identity(self) -> str:
        """The name of this process in the Lease."""
        return self._identity

    def acquire(self) -> bool:
        self._held = None
        answer = self._send("GET", None)
        if answer.status == 404:
            # A deleted Lease says nothing about its holder, which may still lead.
            if self._seen and not self._has_expired(_DELETED):
                return False
            spec = {"leaseTransitions": 0, "acquireTime": _now(), **self._renewal()}
            return self._take("POST", {**_KIND, "metadata": {"name": self._name}, "spec": spec})
        lease = self._lease(answer)
        self._holder = lease.holder
        if lease.holder == self._identity:  # the answer to an earlier request was lost
            return self._take("PUT", lease.with_spec(self._renewal()))
        if lease.holder and not self._has_expired(lease):
            return False
        changes = {"leaseTransitions": min(lease.transitions + 1, _MOST_TRANSITIONS), "acquireTime": _now()}
        return self._take("PUT", lease.with_spec({**changes, **self._renewal()}))

    def check(self) -> None:
        answer = self._send("GET", None)
        self._holder = "" if answer.status == 404 else self._lease(answer).holder

    def renew(self, within: float) -> None:
        deadline = self._clock() + within
        if self._held is None:
            raise LockError("this process does not hold the lock", lost=True)
        answer = self._send("PUT", self._held.with_spec(self._renewal()), deadline)
        if answer.status == 409:
            # A lost answer to the last renewal has changed the version, or another process the Lease.
            answer = self._send("GET", None, deadline)
            if answer.status != 404:
                self._held = self._own(self._lease(answer))
                answer = self._send("PUT", self._held.with_spec(self._renewal()), deadline)
        if answer.status == 404:
            self._lose("", "the Lease was deleted")
        self._held = self._own(self._lease(answer))

    def may_be_lost(self) -> bool:
        """A Lease sends nothing unasked."""
        return False

    def release(self) -> None:
        self._held = None
        try:
            if self._requested:
                self._give_back()
            self._requested = False
        finally:
            self._api.close()

    def _give_back(self) -> None:
        answer = self._send("GET", None)
        if answer.status == 404:
            return
        lease = self._lease(answer)
        if lease.holder != self._identity:
            return
        now = _now()
        # The duration 1 is for other programs: this one takes a Lease without a holder at once.
        free = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
        answer = self._send("PUT", lease.with_spec(free))
        if answer.status != 404:
            self._lease(answer)

    def _take(self, method: Method, lease: Mapping[str, Any]) -> bool:
        self._requested = True
        answer = self._send(method, lease)
        if answer.status == 409:
            self._holder = ""  # another process was first
            return False
        self._held = self._own(self._lease(answer))
        return True

    def _own(self, lease: _Lease) -> _Lease:
        """Return a Lease of this process. Raises LockError if another process or none holds it."""
        self._holder = lease.holder
        if lease.holder != self._identity:
            self._lose(lease.holder, f"{self.holder or 'no process'} holds the lock now")
        return lease

    def _lose(self, holder: str, reason: str) -> NoReturn:
        self._held, self._requested, self._holder = None, False, holder
        raise LockError(reason, lost=True)

    def _has_expired(self, lease: _Lease) -> bool:
        """Return whether the Lease is unchanged for its duration, or for this process's own if longer.

        A follower looks three times within that time. Without the slack, the third look would often be a
        moment too early, and the next one a third too late. A leader ends after 0.8 of its duration.
        """
        now = self._clock()
        seen = lease.holder, lease.renewed, lease.version
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at >= max(lease.duration, self._duration) - self._slack

    def _renewal(self) -> Mapping[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration,
            "renewTime": _now(),
        }

    def _send(self, method: Method, lease: Mapping[str, Any] | None, deadline: float = math.inf) -> ApiAnswer:
        timeout = min(self._timeout, deadline - self._clock())
        return self._api.send(method, lease, max(timeout, _SHORTEST_TIMEOUT))

    def _lease(self, answer: ApiAnswer) -> _Lease:
        """Return the Lease in an answer; raises LockError if it contains none."""
        if not 200 <= answer.status < 300:
            raise refusal(answer, self._api.namespace)
        return _Lease.read(answer.document)


_KIND = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}


@dataclass(frozen=True, slots=True)
class _Lease:
    """A Lease and the fields of it that decide."""

    document: Mapping[str, Any]
    version: str
    holder: str
    renewed: object
    duration: int
    """Seconds; 0 if the Lease has no valid duration."""
    transitions: int

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> _Lease:
        """Raises LockError if the document is no Lease, or its version or its holder are not readable."""
        metadata = document.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        spec = document.get("spec") or {}
        holder = (spec.get("holderIdentity") or "") if isinstance(spec, dict) else None
        if not (isinstance(version, str) and version and isinstance(holder, str)):
            raise LockError(
                "the API server of Kubernetes sends no valid Lease",
                hint="stop all pollers of the election, then delete the Lease",
            )
        return cls(
            document,
            version,
            holder,
            spec.get("renewTime"),
            min(_count(spec.get("leaseDurationSeconds")), LONGEST_SECONDS),
            _count(spec.get("leaseTransitions")),
        )

    def with_spec(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the document with changed fields; others, such as labels, stay."""
        return {**self.document, **_KIND, "spec": {**(self.document.get("spec") or {}), **changes}}


_DELETED = _Lease({}, "deleted", "", None, 0, 0)


def _count(value: object) -> int:
    """Return a number of the API; 0 if it is missing, negative or no whole number."""
    return value if type(value) is int and value > 0 else 0


def _now() -> str:
    """Return the time as a MicroTime of the API."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
