"""Leader lock on a Lease, with the official client, against an API server on a real socket."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from poller.daemon.kubernetes_api import KubernetesApi
from poller.daemon.kubernetes_lease import KubernetesLease
from poller.model.errors import ConfigError
from poller.model.leader import LeaderLock, LockError
from poller.receiver.ports import LOOPBACK
from tests.bed.kubernetes_api import NAMESPACE, Fault, KubernetesApiServer, kubernetes_api

NAME = "obscura-poller"
TTL = 30.0
EXPIRY = TTL - TTL / 12
"""Seconds after which a candidate takes a Lease that has not changed."""


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApiServer]:
    with kubernetes_api() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_candidate(api: KubernetesApiServer, clock: Clock) -> Iterator[Callable[..., KubernetesLease]]:
    """Return a candidate for the Lease of `api`."""
    started: list[KubernetesLease] = []

    def candidate(instance: str = "a", ttl: float = TTL) -> KubernetesLease:
        started.append(KubernetesLease(NAME, instance, ttl, clock=clock))
        return started[-1]

    yield candidate
    api.close()
    for lock in started:
        with contextlib.suppress(LockError):
            lock.release()


def lost(lock: LeaderLock) -> LockError:
    with pytest.raises(LockError) as caught:
        lock.renew(10)
    assert caught.value.lost
    return caught.value


def failed(attempt: Callable[[], object]) -> LockError:
    with pytest.raises(LockError) as caught:
        attempt()
    assert not caught.value.lost
    return caught.value


# --- One holder ---


def test_the_first_candidate_creates_the_lease_and_the_others_name_its_holder(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a, b, c = make_candidate("a"), make_candidate("b"), make_candidate("c")
    assert a.acquire()
    assert (b.acquire(), c.acquire()) == (False, False)
    assert a.holder == b.holder == c.holder == a.identity
    spec = api.leases.spec(NAME)
    assert spec["holderIdentity"] == a.identity
    assert spec["leaseDurationSeconds"] == 30
    assert spec["leaseTransitions"] == 0
    for time in spec["acquireTime"], spec["renewTime"]:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time)
    assert a.name == "kubernetes:obscura-poller"


def test_two_processes_with_the_same_instance_are_two_candidates(
    make_candidate: Callable[..., KubernetesLease],
) -> None:
    a, restarted = make_candidate("same"), make_candidate("same")
    assert a.acquire()
    assert not restarted.acquire()
    assert a.identity.startswith("same_")


def test_a_part_of_a_second_counts_as_a_whole_second(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    assert make_candidate(ttl=2.2).acquire()
    assert api.leases.spec(NAME)["leaseDurationSeconds"] == 3


def test_a_release_hands_over_at_once(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a, b = make_candidate("a"), make_candidate("b")
    assert a.acquire()
    assert not b.acquire()
    a.release()
    free = api.leases.spec(NAME)
    assert (free["holderIdentity"], free["leaseDurationSeconds"]) == ("", 1)
    assert b.acquire()
    assert api.leases.spec(NAME)["leaseTransitions"] == 1
    assert not a.acquire()
    lost(a)


def test_an_expired_lease_changes_its_holder(
    api: KubernetesApiServer, clock: Clock, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a, b = make_candidate("a"), make_candidate("b")
    assert a.acquire()
    assert not b.acquire()
    clock.seconds += EXPIRY - 0.1
    assert not b.acquire()
    clock.seconds += 0.1
    assert b.acquire()
    assert api.leases.spec(NAME)["leaseTransitions"] == 1
    assert "b_" in str(lost(a))
    assert a.holder == b.identity


def test_a_renewal_extends_the_lease_by_its_full_duration(
    clock: Clock, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a, b = make_candidate("a"), make_candidate("b")
    assert a.acquire()
    for _ in range(3):
        assert not b.acquire()
        clock.seconds += EXPIRY - 1
        a.renew(10)
    assert not b.acquire()
    clock.seconds += EXPIRY - 1
    assert not b.acquire()
    clock.seconds += 1
    assert b.acquire()


def test_the_duration_of_the_lease_counts_if_it_is_longer_than_that_of_the_candidate(
    clock: Clock, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a, b = make_candidate("a", ttl=60), make_candidate("b", ttl=10)
    assert a.acquire()
    assert not b.acquire()
    clock.seconds += 59
    assert not b.acquire()
    clock.seconds += 0.5
    assert b.acquire()


@pytest.mark.parametrize("stamp", ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "now", 7])
def test_the_time_in_a_lease_does_not_matter(
    api: KubernetesApiServer, clock: Clock, make_candidate: Callable[..., KubernetesLease], stamp: object
) -> None:
    """Another machine's wall clock may be wrong or jump."""
    a, b = make_candidate("a"), make_candidate("b")
    assert a.acquire()
    spec = api.leases.spec(NAME)
    api.leases.put(NAME, {"spec": {**spec, "renewTime": stamp, "acquireTime": stamp}})
    assert not b.acquire()
    clock.seconds += EXPIRY - 0.1
    assert not b.acquire()
    clock.seconds += 0.1
    assert b.acquire()


def test_many_threads_that_try_at_once_elect_one(make_candidate: Callable[..., KubernetesLease]) -> None:
    candidates = [make_candidate(str(number)) for number in range(3)]
    for _ in range(20):
        results: list[bool] = []
        barrier = threading.Barrier(len(candidates))

        def attempt(
            lock: KubernetesLease, barrier: threading.Barrier = barrier, results: list[bool] = results
        ) -> None:
            barrier.wait()
            results.append(lock.acquire())

        threads = [threading.Thread(target=attempt, args=(lock,)) for lock in candidates]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(results) == 1
        for lock in candidates:
            lock.release()


def test_the_third_look_of_a_follower_takes_an_expired_lease_even_if_its_answer_is_quicker(
    clock: Clock, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a, b = make_candidate("a"), make_candidate("b")
    assert a.acquire()
    assert not b.acquire()
    for seconds in TTL / 3, TTL / 3:
        clock.seconds += seconds
        assert not b.acquire()
    clock.seconds += TTL / 3 - 1
    assert b.acquire()


# --- Conflicts and losses ---


def test_another_process_that_creates_or_takes_the_lease_first_keeps_it(
    api: KubernetesApiServer, clock: Clock, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a = make_candidate("a")
    api.faults.extend([None, "conflict"])
    assert not a.acquire()
    assert make_candidate("b").acquire()
    assert not a.acquire()
    clock.seconds += TTL
    api.faults.extend([None, "conflict"])
    assert not a.acquire()


def test_a_renewal_survives_a_change_of_the_lease_by_another_program(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a = make_candidate("a")
    assert a.acquire()
    changed = {**api.leases.stored[NAME], "metadata": {"labels": {"team": "chat"}}}
    api.leases.put(NAME, changed)
    a.renew(10)
    assert api.leases.stored[NAME]["metadata"]["labels"] == {"team": "chat"}
    a.release()
    assert api.leases.stored[NAME]["metadata"]["labels"] == {"team": "chat"}


def test_a_deleted_lease_is_lost_and_can_be_created_again(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a = make_candidate("a")
    assert a.acquire()
    api.leases.stored.clear()
    assert "deleted" in str(lost(a))
    lost(a)
    assert a.acquire()


def test_a_lease_without_a_holder_is_lost(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a = make_candidate("a")
    assert a.acquire()
    api.leases.put(NAME, {"spec": {"holderIdentity": ""}})
    lost(a)


def test_a_release_leaves_the_lease_of_another_process_unchanged(
    api: KubernetesApiServer, clock: Clock, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a, b = make_candidate("a"), make_candidate("b")
    assert a.acquire()
    assert not b.acquire()
    clock.seconds += TTL
    assert b.acquire()
    before = api.leases.stored[NAME]
    a.release()
    assert api.leases.stored[NAME] == before


def test_a_follower_that_stops_sends_no_request(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    make_candidate("a").release()
    assert api.requests == []


# --- Faults ---

FAULTS: list[Fault] = [
    "hang",
    "lost",
    "slow",
    "endless",
    "endless-error",
    "cut",
    "page",
    "unavailable",
    "forbidden",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_request_is_an_error_that_loses_nothing(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease], fault: Fault
) -> None:
    # A busy machine needs the longest timeout of a request.
    a, b = make_candidate("a", ttl=60), make_candidate("b", ttl=60)
    api.faults.append(fault)
    failed(a.acquire)
    api.faults.extend([None, fault])  # the request that creates the Lease
    failed(a.acquire)
    assert a.acquire()
    api.faults.append(fault)
    error = failed(lambda: a.renew(5))
    assert "secret-token" not in str(error)
    a.renew(5)
    assert not b.acquire()
    api.faults.append(fault)
    failed(a.release)
    a.release()
    assert b.acquire()


def test_a_refused_connection_is_an_error_and_a_later_request_succeeds(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a = make_candidate("a")
    assert a.acquire()
    api.refuse()
    failed(lambda: a.renew(5))
    error = failed(lambda: a.renew(5))
    assert "refused" in str(error)
    assert str(api.port) in str(error.hint)
    api.always = None
    api.listen()
    a.renew(5)


@pytest.mark.parametrize("fault", ["hang", "slow"])
def test_a_renewal_ends_within_its_time(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease], fault: Fault
) -> None:
    a = make_candidate("a")
    assert a.acquire()
    api.faults.append(fault)
    assert "within 0.05 s" in str(failed(lambda: a.renew(0.05)))


def test_a_refused_request_names_the_missing_rule(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    api.faults.append("forbidden")
    error = failed(make_candidate("a").acquire)
    assert "403: leases.coordination.k8s.io is forbidden" in str(error)
    assert error.hint is not None
    assert "get, create and update leases" in error.hint
    assert NAMESPACE in error.hint


# --- Malformed Leases ---


@pytest.mark.parametrize(
    "spec",
    [
        {"holderIdentity": "x", "leaseDurationSeconds": -5},
        {"holderIdentity": "x", "leaseDurationSeconds": 0},
        {"holderIdentity": "x", "leaseDurationSeconds": "1"},
        {"holderIdentity": "x", "leaseDurationSeconds": 0.1},
        {"holderIdentity": "x", "leaseDurationSeconds": True},
        {"holderIdentity": "x", "leaseTransitions": "many"},
        {"holderIdentity": "x" * 500_000, "renewTime": "y" * 100_000},
    ],
)
def test_an_invalid_duration_counts_as_that_of_the_candidate(
    api: KubernetesApiServer,
    clock: Clock,
    make_candidate: Callable[..., KubernetesLease],
    spec: dict[str, Any],
) -> None:
    a = make_candidate("a")
    api.leases.put(NAME, {"spec": spec})
    assert not a.acquire()
    assert len(a.holder) < 300
    clock.seconds += EXPIRY - 1
    assert not a.acquire()
    clock.seconds += 1
    assert a.acquire()
    assert api.leases.spec(NAME)["leaseTransitions"] == 1


def test_a_huge_duration_delays_a_takeover_by_an_hour_at_most(
    api: KubernetesApiServer, clock: Clock, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a = make_candidate("a")
    api.leases.put(NAME, {"spec": {"holderIdentity": "x", "leaseDurationSeconds": 10**400}})
    assert not a.acquire()
    clock.seconds += 3597
    assert not a.acquire()
    clock.seconds += 0.5
    assert a.acquire()


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": ""}, {"holderIdentity": None}])
def test_a_lease_without_a_holder_is_free(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease], spec: object
) -> None:
    api.leases.put(NAME, {} if spec is None else {"spec": spec})
    assert make_candidate("a").acquire()


@pytest.mark.parametrize(
    "document",
    [
        {"spec": {"holderIdentity": 7}},
        {"spec": {"holderIdentity": ["x"]}},
        {"spec": "x"},
        {"spec": [1]},
        {"metadata": []},
        {"metadata": "x"},
    ],
)
def test_an_unreadable_lease_is_an_error(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease], document: dict[str, Any]
) -> None:
    a = make_candidate("a")
    assert a.acquire()
    api.leases.put(NAME, document)
    api.faults.append("conflict")
    failed(lambda: a.renew(5))
    failed(make_candidate("b").acquire)


def test_a_holder_with_control_characters_cannot_control_the_terminal(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    a = make_candidate("a")
    api.leases.put(NAME, {"spec": {"holderIdentity": "x\x1b[2J\n"}})
    assert not a.acquire()
    assert a.holder == r"x\u001b[2J\n"


# --- Configuration ---


def in_cluster(
    folder: Path, api: KubernetesApiServer, authority: trustme.CA, patch: pytest.MonkeyPatch
) -> Path:
    """Lay out a pod's service account and variables."""
    authority.cert_pem.write_to_path(folder / "ca.crt")
    (folder / "token").write_text("first", encoding="utf-8")
    (folder / "namespace").write_text(NAMESPACE, encoding="utf-8")
    patch.delenv("KUBECONFIG", raising=False)
    patch.setenv("KUBERNETES_SERVICE_HOST", LOOPBACK)
    patch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    return folder


def test_a_pod_uses_its_service_account_and_a_replaced_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    with kubernetes_api(authority) as api:
        folder = in_cluster(tmp_path, api, authority, monkeypatch)
        client = KubernetesApi(NAME, folder)
        lock = KubernetesLease(NAME, "a", TTL, api=client)
        assert client.namespace == NAMESPACE
        assert lock.acquire()
        assert {token.lower() for token in api.tokens} == {"bearer first"}
        api.accepts = "bearer second"
        (folder / "token").write_text("second", encoding="utf-8")
        assert "401" in str(failed(lambda: lock.renew(5)))
        lock.renew(5)
        lock.release()


def test_the_api_server_of_another_authority_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kubernetes_api(trustme.CA()) as api:
        folder = in_cluster(tmp_path, api, trustme.CA(), monkeypatch)
        lock = KubernetesLease(NAME, "a", TTL, api=KubernetesApi(NAME, folder))
        assert "certificate verify failed" in str(failed(lock.acquire))
        lock.release()
        assert api.tokens == []


@pytest.mark.parametrize("missing", ["token", "ca.crt", "namespace"])
def test_a_pod_without_a_token_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    authority = trustme.CA()
    with kubernetes_api(authority) as api:
        folder = in_cluster(tmp_path, api, authority, monkeypatch)
        (folder / missing).unlink()
        with pytest.raises(ConfigError, match="automountServiceAccountToken: true"):
            KubernetesApi(NAME, folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{contexts: 7}", None])
def test_a_kubeconfig_that_cannot_be_used_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(ConfigError, match="POLLER_LEADER_ELECTION: no access to Kubernetes"):
        KubernetesApi(NAME)


def test_a_missing_package_is_a_configuration_error(tmp_path: Path) -> None:
    """In a process of its own, in which the package cannot be imported."""
    code = (
        "import sys; sys.modules['kubernetes'] = None\n"
        "from poller.daemon.kubernetes_lease import KubernetesLease\n"
        "assert 'requests' not in sys.modules and 'urllib3' not in sys.modules\n"
        "KubernetesLease('obscura-poller', 'a', 30)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "ConfigError: POLLER_LEADER_ELECTION: requires an extra" in done.stderr
    assert "pip install '.[kubernetes]'" in done.stderr


def test_the_times_of_a_lease_are_in_utc(
    api: KubernetesApiServer, make_candidate: Callable[..., KubernetesLease]
) -> None:
    assert make_candidate("a").acquire()
    assert datetime.fromisoformat(api.leases.spec(NAME)["renewTime"]).tzname() == "UTC"
