"""An OTLP receiver for each test, and certificates for TLS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from poller.model.otlp_endpoint import Endpoint, Signal, resolve
from poller.receiver.receiver import Receiver, Tls


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority, a server on 127.0.0.1, a client, and a client of another authority."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    stranger: Path
    stranger_key: Path

    @property
    def tls(self) -> Tls:
        """Return the settings of a receiver that serves TLS."""
        return Tls(self.server, self.server_key)

    @property
    def mtls(self) -> Tls:
        """Return the settings of a receiver that serves TLS only to clients of the authority."""
        return Tls(self.server, self.server_key, client_ca=self.ca)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    server, server_key = _write(directory, "server", authority.issue_cert("127.0.0.1", "localhost"))
    client, client_key = _write(directory, "client", authority.issue_cert("poller@example.org"))
    stranger, stranger_key = _write(directory, "stranger", trustme.CA().issue_cert("poller@example.org"))
    return Certificates(ca, server, server_key, client, client_key, stranger, stranger_key)


def _write(directory: Path, name: str, issued: trustme.LeafCert) -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return certificate, key


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def endpoint_of(receiver: Receiver, protocol: str, signal: Signal = "metrics") -> Endpoint:
    """Return the endpoint of a receiver over gRPC, or over HTTP for every other protocol."""
    if protocol == "grpc":
        return resolve(receiver.grpc_endpoint, "POLLER_OTLP_ENDPOINT", "grpc", signal)
    return resolve(receiver.http_endpoint, "POLLER_OTLP_ENDPOINT", "http/protobuf", signal)
