"""Requests for one Lease to the API server of Kubernetes, with the configuration of its official client.

The client's package needs 22 MB of memory, so it is imported only for a leader election on
Kubernetes. Its methods for Leases are not used: they read an answer of any size, and their timeouts are per
socket operation.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from urllib.parse import quote

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.files import parse_json, read_regular
from poller.model.leader import LockError
from poller.model.printable import one_line, text_of
from poller.model.text import install

if TYPE_CHECKING:
    from poller.otlp.http_transport import AbortableConnection

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The folder in which Kubernetes puts a pod's token, CA certificate and namespace."""
MOST_BYTES = 1 << 20
"""Bytes of an answer that are read; a Lease has about one thousand."""
_LONGEST_NAME = 253
_LONGEST_REASON = 300
_ACCESS = "set automountServiceAccountToken: true in the pod, or KUBECONFIG outside of a cluster"

Method = Literal["GET", "POST", "PUT"]


class ApiAnswer(NamedTuple):
    """A status of HTTP, and the object in the answer; empty if an error contains none."""

    status: int
    document: Mapping[str, Any]


class LeaseApi(Protocol):
    """Requests for one Lease; one thread at a time."""

    namespace: str

    def send(self, method: Method, lease: Mapping[str, Any] | None, timeout: float) -> ApiAnswer:
        """Send a request and return the answer, whatever its status, within `timeout` seconds.

        Raises LockError if there is no answer within that time, or none of a server of Kubernetes.
        """

    def close(self) -> None:
        """Close the connection; the next request opens another."""


class KubernetesApi:
    """The API server of the pod's cluster or of the kubeconfig's context."""

    def __init__(self, lease_name: str, service_account: Path = SERVICE_ACCOUNT) -> None:
        """Load the configuration: that of KUBECONFIG, or else of the pod, or else of ~/.kube/config.

        Raises ConfigError if the package is missing or the configuration cannot be used.
        """
        self._service_account = service_account
        try:
            from poller.otlp.http_transport import AbortableConnection

            self._line = AbortableConnection()
            self._client: _Client | None = _Client(self._line, service_account)
        except ImportError as error:
            raise _unusable(f"requires an extra ({error}): {install('kubernetes')}") from None
        except Exception as error:  # of the client, YAML, files and TLS
            raise _unusable(f"no access to Kubernetes: {one_line(text_of(error))}; {_ACCESS}") from error
        self.host, self.namespace = self._client.host, self._client.namespace
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{quote(self.namespace, safe='')}/leases"
        self._lease = f"{self._leases}/{quote(lease_name, safe='')}"
        self._exchange: threading.Thread | None = None

    def send(self, method: Method, lease: Mapping[str, Any] | None, timeout: float) -> ApiAnswer:
        """Send a request; see LeaseApi.

        The exchange runs on its own thread, because a hanging name resolution cannot be cancelled.
        """
        deadline = time.monotonic() + timeout
        late = LockError(f"the API server of Kubernetes did not answer within {timeout:.2g} s")
        if self._exchange is not None:
            self._exchange.join(timeout)
            if self._exchange.is_alive():
                raise late
        self._line.begin(deadline)
        ended: list[ApiAnswer | Exception] = []

        def exchange() -> None:
            try:
                ended.append(self._send(method, lease, timeout))
            except Exception as error:  # noqa: BLE001 - of urllib3, TLS and the client's credentials
                ended.append(error)

        thread = threading.Thread(target=exchange, name="kubernetes-lease", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise LockError(f"the request to Kubernetes was not sent: {error}") from None
        self._exchange = thread
        thread.join(max(0.0, deadline - time.monotonic()))
        if not ended:
            self._line.cut()
            raise late
        answer = ended[0]
        if isinstance(answer, ApiAnswer):
            return answer
        if isinstance(answer, LockError):
            raise answer
        if time.monotonic() >= deadline:  # the exchange has the same limit, and may notice it first
            raise late from answer
        from poller.otlp.http_transport import cause_of

        raise LockError(
            f"no answer from the API server of Kubernetes: {one_line(cause_of(answer)[:_LONGEST_REASON])}",
            hint=f"allow connections to {self.host}",
        ) from answer

    def close(self) -> None:
        self._line.cut()
        if self._client is not None:
            self._client.close()

    def _send(self, method: Method, lease: Mapping[str, Any] | None, timeout: float) -> ApiAnswer:
        client = self._client = self._client or _Client(self._line, self._service_account)
        answer = client.send(method, self._leases if method == "POST" else self._lease, lease, timeout)
        if answer.status == 401:
            # The client reads the token again every minute of a clock that may be set back.
            client.close()
            self._client = None
        return answer


class _Client:
    """A connection to the API server with the configuration as it was at the time of construction."""

    def __init__(self, line: AbortableConnection, service_account: Path) -> None:
        from kubernetes import config
        from kubernetes.client import Configuration
        from kubernetes.client.rest import RESTClientObject
        from kubernetes.config.incluster_config import InClusterConfigLoader

        from poller.otlp.http_transport import abortable_pools

        self._configuration = configuration = Configuration()
        kubeconfig = os.environ.get("KUBECONFIG") or None
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not kubeconfig:
            token, certificate = (str(service_account / name) for name in ("token", "ca.crt"))
            InClusterConfigLoader(token, certificate).load_and_set(configuration)
            self.namespace = read_regular(service_account / "namespace", _LONGEST_NAME).decode().strip()
        else:
            config.load_kube_config(kubeconfig, client_configuration=configuration)
            context = config.list_kube_config_contexts(kubeconfig)[1]
            self.namespace = context["context"].get("namespace") or "default"
        self.host: str = configuration.host
        # The client's own manager of connections knows its certificates and its proxy.
        self._manager = RESTClientObject(configuration).pool_manager
        self._manager.pool_classes_by_scheme = abortable_pools(line)

    def send(self, method: str, path: str, lease: Mapping[str, Any] | None, timeout: float) -> ApiAnswer:
        from urllib3 import Timeout

        headers = {"Accept": "application/json", "User-Agent": "obscura-poller"}
        for setting in self._configuration.auth_settings().values():  # reads a pod's new token every minute
            headers[setting["key"]] = setting["value"]
        if lease is not None:
            headers["Content-Type"] = "application/json"
        response = self._manager.request(
            method,
            self.host + path,
            body=None if lease is None else json.dumps(lease),
            headers=headers,
            timeout=Timeout(total=timeout),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            content = response.read(MOST_BYTES + 1)
        except BaseException:
            response.close()
            raise
        if len(content) > MOST_BYTES:
            response.close()
            raise LockError(f"the API server of Kubernetes sends an answer of more than {MOST_BYTES} bytes")
        response.release_conn()
        return _answer(response.status, content)

    def close(self) -> None:
        self._manager.clear()


def _answer(status: int, content: bytes) -> ApiAnswer:
    """Return an answer; raises LockError if it is a success without an object."""
    try:
        document = parse_json(content)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return ApiAnswer(status, document)
    if 200 <= status < 300:
        raise LockError(
            "the answer is not one of the API server of Kubernetes, because it contains no JSON object",
            hint="connect to the API server itself, not to a proxy or a web page",
        )
    return ApiAnswer(status, {})


def refusal(answer: ApiAnswer, namespace: str) -> LockError:
    """Return the error for an answer with a status that is no success."""
    hints: Mapping[int, str] = {
        401: "check the pod's service account and its token",
        403: "allow the service account to get, create and update leases of the group coordination.k8s.io"
        f" in the namespace {namespace} (deploy/kubernetes/leader-election/role.yaml)",
        404: f"create the namespace {namespace}",
    }
    message = answer.document.get("message")
    reason = f": {one_line(message[:_LONGEST_REASON])}" if isinstance(message, str) and message else ""
    text = f"the API server of Kubernetes refuses the request with status {answer.status}{reason}"
    return LockError(text, hint=hints.get(answer.status))


def _unusable(message: str) -> ConfigError:
    return ConfigError([invalid("POLLER_LEADER_ELECTION", message)])
