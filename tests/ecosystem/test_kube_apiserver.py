"""Leader election by a Lease of a real API server of Kubernetes with etcd and RBAC.

python -m tests.ecosystem.builds kubernetes-server
"""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from poller.receiver.ports import LOOPBACK, free_ports
from tests.acceptance.daemon.test_leader_election import (
    FOLLOWS,
    LEADS,
    LEASE,
    LOST,
    TTL,
    StartCandidate,
    exports_leader,
    precedes,
)
from tests.bed.kubernetes_api import write_kubeconfig
from tests.bed.process import Process, eventually
from tests.ecosystem.builds import need
from tests.ecosystem.manifests import KUSTOMIZE

pytestmark = pytest.mark.slow
ADMIN = "token-of-an-administrator"


class KubernetesServer:
    """kube-apiserver and etcd on 127.0.0.1, without controllers and nodes."""

    def __init__(self, folder: Path) -> None:
        programs = need("etcd"), need("kube-apiserver")
        self._folder = folder
        self._started: list[Process] = []
        etcd, peers, port = free_ports(3)
        self._url = f"https://{LOOPBACK}:{port}"
        authority, self._certificate = trustme.CA(), folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self._certificate))
        server = authority.issue_cert(LOOPBACK)
        server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        server.private_key_pem.write_to_path(str(key := folder / "server.key"))
        (folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n', encoding="utf-8")
        peer, etcd_url = f"http://{LOOPBACK}:{peers}", f"http://{LOOPBACK}:{etcd}"
        etcd_options = {
            "data-dir": folder / "etcd",
            "listen-client-urls": etcd_url,
            "advertise-client-urls": etcd_url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        options = {
            "etcd-servers": etcd_url,
            "bind-address": LOOPBACK,
            "advertise-address": LOOPBACK,  # without it, a machine without a default route is refused
            "endpoint-reconciler-type": "none",
            "secure-port": port,
            "tls-cert-file": folder / "server.pem",
            "tls-private-key-file": key,
            "cert-dir": folder,
            "authorization-mode": "RBAC",
            "token-auth-file": folder / "tokens.csv",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "service-cluster-ip-range": "10.0.0.0/24",
        }
        try:
            for program, values in zip(programs, (etcd_options, options), strict=True):
                command = [program, *(f"--{name}={value}" for name, value in values.items())]
                self._started.append(Process(command))
            assert eventually(self._is_ready, 120), self._started[-1]
        except BaseException:
            self.close()
            raise

    def _is_ready(self) -> bool:
        for process in self._started:
            assert process.running, process
        with contextlib.suppress(OSError):
            return self._send("/readyz") == b"ok"
        return False

    def _send(self, path: str, document: object = None) -> bytes:
        """Send a request of an administrator, POST with a document; raises OSError if it is refused."""
        content = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, content, headers)
        context = ssl.create_default_context(cafile=self._certificate)
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return bytes(answer.read())

    def close(self) -> None:
        for process in reversed(self._started):
            process.close()

    def install(self, namespace: str) -> str:
        """Create a namespace with the service account and its role; return the path of a kubeconfig."""
        core, rbac = "/api/v1/namespaces", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        self._send(core, {"metadata": {"name": namespace}})
        account, role, binding = (
            manifest
            for file in ("base/serviceaccount.yaml", "leader-election/role.yaml")
            for manifest in yaml.safe_load_all((KUSTOMIZE / file).read_text(encoding="utf-8"))
        )
        binding["subjects"][0]["namespace"] = namespace  # kustomize adds it
        self._send(f"{core}/{namespace}/serviceaccounts", account)
        self._send(f"{rbac}/roles", role)
        self._send(f"{rbac}/rolebindings", binding)
        path = f"{core}/{namespace}/serviceaccounts/{account['metadata']['name']}/token"
        token = json.loads(self._send(path, {"spec": {}}))["status"]["token"]
        cluster = {"server": self._url, "certificate-authority": str(self._certificate)}
        return str(write_kubeconfig(self._folder / f"{namespace}.kubeconfig", cluster, namespace, token))

    def lease(self, namespace: str) -> dict[str, Any]:
        """Return `spec` of the Lease obscura-poller."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/obscura-poller"
        spec: dict[str, Any] = json.loads(self._send(path))["spec"]
        return spec


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesServer]:
    server = KubernetesServer(tmp_path_factory.mktemp("kubernetes"))
    yield server
    server.close()


def test_a_killed_leader_that_renewed_its_lease_has_a_successor_once_it_has_expired(
    start_candidate: StartCandidate, api: KubernetesServer
) -> None:
    kubeconfig = api.install("killed")
    first = start_candidate("first", LEASE, KUBECONFIG=kubeconfig)
    first.line(LEADS)
    assert first.polls()
    second = start_candidate("second", LEASE, KUBECONFIG=kubeconfig)
    second.line(f"{FOLLOWS}.*leader=.?first")
    acquired = api.lease("killed")
    assert eventually(lambda: api.lease("killed")["renewTime"] > acquired["renewTime"])
    assert second.points() == []
    first.process.send(signal.SIGKILL)
    first.process.wait()
    last = api.lease("killed")
    assert last["holderIdentity"] == acquired["holderIdentity"]
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)
    taken = api.lease("killed")
    assert taken["holderIdentity"].startswith("second_")
    assert taken["leaseTransitions"] == acquired["leaseTransitions"] + 1
    # The killed process could have polled for that time.
    times = [datetime.fromisoformat(time) for time in (last["renewTime"], taken["acquireTime"])]
    assert times[1] - times[0] > timedelta(seconds=0.8 * TTL)


def test_a_leader_that_stops_frees_its_lease_for_another_one(
    start_candidate: StartCandidate, api: KubernetesServer
) -> None:
    kubeconfig = api.install("stopped")
    first = start_candidate("first", LEASE, KUBECONFIG=kubeconfig)
    first.line(LEADS)
    assert first.polls()
    second = start_candidate("second", LEASE, KUBECONFIG=kubeconfig)
    second.line(FOLLOWS)
    first.process.send(signal.SIGTERM)
    assert first.process.wait() == 0
    assert not api.lease("stopped")["holderIdentity"].startswith("first_")  # it has not expired yet
    second.line(LEADS)
    assert second.polls()
    assert precedes(first, second)
    assert LOST not in first.process.stderr


def test_a_lease_with_a_name_that_the_role_does_not_contain_is_refused(
    start_candidate: StartCandidate, api: KubernetesServer
) -> None:
    candidate = start_candidate("first", "kubernetes:another", KUBECONFIG=api.install("refused"))
    candidate.line('status 403: leases.* "another" is forbidden: .*leader-election/role.yaml')
    assert exports_leader(candidate, 0)
    assert candidate.points() == []
    assert candidate.process.running
