"""A request over HTTP or gRPC: deadline, credentials, proxy, and unusual answers."""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from poller.model.errors import ConfigError
from poller.model.otlp_endpoint import Endpoint, Protocol, resolve
from poller.otlp.response import ExportResult
from poller.otlp.sender import build_sender
from poller.receiver.receiver import Receiver
from tests.bed.otlp import Certificates, endpoint_of
from tests.bed.process import ROOT, eventually

Script = Callable[[socket.socket], None]
Serve = Callable[[Script], str]
PROTOCOLS = ["grpc", "http/protobuf"]
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Run a script on each connection to a new port; return the URL."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def converse(connection: socket.socket, script: Script) -> None:
        with connection, contextlib.suppress(OSError):
            script(connection)

    def accept(listener: socket.socket, script: Script) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=converse, args=(connection, script)))
            threads[-1].start()

    def serve(script: Script) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threads.append(threading.Thread(target=accept, args=(listener, script)))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a connection was left open"


def head(connection: socket.socket) -> bytes:
    """Return the head of a request; its body may be read as well."""
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
        data += more
    return data


def trickle(connection: socket.socket, piece: bytes, start: bytes = b"") -> None:
    """Send `start`, then `piece` again and again until the peer ends the connection."""
    head(connection)
    connection.sendall(start)
    while True:
        connection.sendall(piece)
        time.sleep(0.02)


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def sender(url: str, timeout: float = 60.0, environ: Mapping[str, str] | None = None) -> Any:
    return build_sender(resolve(url, "POLLER_OTLP_ENDPOINT", "http/protobuf"), timeout, environ or {})


def answering(*pieces: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        head(connection)
        for piece in pieces:
            connection.sendall(piece)

    return script


def answer_with(body: bytes, kind: str = "application/x-protobuf", *headers: str) -> Script:
    lines = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return answering(OK + "\r\n".join(lines).encode() + body)


def partial(rejected: int, message: str) -> bytes:
    partial_success = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
    return ExportMetricsServiceResponse(partial_success=partial_success).SerializeToString()


# --- the deadline ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(silent, id="no answer"),
        pytest.param(lambda connection: trickle(connection, b"H"), id="a status line"),
        pytest.param(
            lambda connection: trickle(connection, b"HTTP/1.1 100 Continue\r\n\r\n"),
            id="endless 100 Continue",
        ),
        pytest.param(lambda connection: trickle(connection, b"x", OK + b"X: "), id="a header"),
        pytest.param(
            lambda connection: trickle(connection, b"x", OK + b"Content-Length: 100000\r\n\r\n"),
            id="a body of a success",
        ),
        pytest.param(
            lambda connection: trickle(connection, b"x", b"HTTP/1.1 500 no\r\nConnection: close\r\n\r\n"),
            id="a body of a refusal",
        ),
        pytest.param(
            lambda connection: trickle(connection, b"1\r\nx\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
            id="chunks",
        ),
    ],
)
def test_the_timeout_limits_the_whole_exchange_however_slowly_bytes_arrive(
    serve: Serve, script: Script
) -> None:
    """Each byte arrives in time; the fixture checks that the connection is closed."""
    connection = sender(serve(script), 0.5)
    for _ in range(2):
        result = connection.send(b"")
        assert (result.disposition, result.error["error.type"]) == ("retryable", "ReadTimeout")
    connection.close()
    assert eventually(lambda: not exchanges())


@pytest.mark.parametrize("piece", [b"", b"\x16\x03\x03\x40\x00"], ids=["silent", "slow"])
def test_the_timeout_limits_the_tls_handshake(serve: Serve, piece: bytes) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(5)
        connection.sendall(piece)
        while piece:
            connection.sendall(b"\0")
            time.sleep(0.02)
        silent(connection)

    client = sender(serve(script).replace("http", "https"), 0.5)
    assert client.send(b"").disposition == "retryable"
    client.close()
    assert eventually(lambda: not exchanges())


@pytest.mark.slow
def test_the_timeout_limits_a_hanging_name_resolution_and_a_single_thread_waits_for_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, released = socket.getaddrinfo, threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert released.wait(60)
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    client = sender(receiver.http_endpoint, 0.3)
    for _ in range(3):
        assert client.send(b"").disposition == "retryable"
    assert len(exchanges()) == 1
    released.set()
    assert eventually(lambda: not exchanges())
    assert receiver.attempts() == [], "an abandoned request is not sent afterwards"
    monkeypatch.setattr(socket, "getaddrinfo", real)
    assert client.send(b"").disposition == "accepted"
    client.close()


def test_closing_a_sender_ends_its_current_request(serve: Serve) -> None:
    client = sender(serve(silent), 3600.0)
    results: list[ExportResult] = []
    sending = threading.Thread(target=lambda: results.append(client.send(b"")))
    sending.start()
    assert eventually(lambda: bool(exchanges()))
    client.close()
    sending.join(60)
    assert [export_result.disposition for export_result in results] == ["retryable"]
    assert client.send(b"").disposition == "retryable", "no request begins after that"


def exchanges() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "otlp-exchange"]


# --- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"partialSuccess": {"rejectedDataPoints": 1e400}}',
        b'{"partialSuccess": {"rejectedDataPoints": [[]]}}',
        b'{"partialSuccess": {"rejectedDataPoints": "' + b"9" * 5000 + b'"}}',
        b'{"partialSuccess": ' * 50_000,
        b"[" * 200_000,
        b"\xff\xfe",
        b"null",
    ],
    ids=["1e400", "a list", "5000 digits", "deep", "lists", "no text", "null"],
)
def test_an_invalid_body_of_a_success_blocks_nothing(serve: Serve, body: bytes) -> None:
    client = sender(serve(answer_with(body, "application/json")))
    result = client.send(b"")
    assert (result.disposition, result.rejected) == ("accepted", 0)
    client.close()


@pytest.mark.parametrize("kind", ["application/json", "application/x-protobuf"])
def test_a_long_partial_success_is_read_completely(serve: Serve, kind: str) -> None:
    """It may arrive in many chunks."""
    message = "too old, " * 20_000
    body = partial(7, message)
    if kind == "application/json":
        body = json.dumps({"partialSuccess": {"errorMessage": message, "rejectedDataPoints": "7"}}).encode()
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece)
        for piece in (body[at : at + 1000] for at in range(0, len(body), 1000))
    )
    start = OK + f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    client = sender(serve(answering(start + chunks + b"0\r\n\r\n")))
    result = client.send(b"")
    assert (result.disposition, result.rejected, result.reason[:9]) == ("accepted", 7, "too old, ")
    client.close()


@pytest.mark.parametrize(
    "script",
    [
        answer_with(b"no gzip", "application/x-protobuf", "Content-Encoding: gzip"),
        answer_with(gzip.compress(bytes(30 * 2**20)), "application/x-protobuf", "Content-Encoding: gzip"),
        answer_with(bytes(5 * 2**20)),
    ],
    ids=["no gzip", "a gzip bomb", "5 MiB"],
)
def test_a_success_with_an_unreadable_body_is_delivered_and_logged(serve: Serve, script: Script) -> None:
    client = sender(serve(script))
    result = client.send(b"")
    assert result.disposition == "accepted"
    assert result.reason.startswith("the answer cannot be read: ")
    client.close()


def test_a_sender_sends_again_after_a_thread_could_not_be_started(serve: Serve) -> None:
    client = sender(serve(answer_with(b"")))
    threading.stack_size(2**60)  # more than the address space
    try:
        with pytest.raises(RuntimeError):
            client.send(b"")
    finally:
        threading.stack_size(0)
    assert client.send(b"").disposition == "accepted"
    client.close()


@pytest.mark.parametrize("value", ["Mon, 99999999999999999999 Jan 2024 00:00:00 GMT", "1e400", "nan", "x"])
def test_an_invalid_retry_after_is_ignored(serve: Serve, value: str) -> None:
    text = f"HTTP/1.1 503 no\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n"
    client = sender(serve(answering(text.encode())))
    result = client.send(b"")
    assert (result.disposition, result.wait) == ("retryable", None)
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(partial(1, "x" * 5 * 2**20), id="above 4 MiB"),
        pytest.param(b"\xff" * 4, id="no message"),
        pytest.param(b"\x0a\x01\x08", id="half a message"),
    ],
)
def test_a_request_with_an_unreadable_grpc_answer_counts_as_delivered(answer: bytes) -> None:
    method = grpc.unary_unary_rpc_method_handler(lambda *_: answer)
    service = "opentelemetry.proto.collector.metrics.v1.MetricsService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = build_sender(Endpoint(f"http://127.0.0.1:{port}", "grpc"), 60.0, {})
    result = client.send(b"")
    assert (result.disposition, result.reason[:26]) == ("accepted", "the answer cannot be read:")
    client.close()
    server.stop(None).wait()


# --- credentials ----------------------------------------------------------------------------------------


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize(
    ("user", "environ", "sent"),
    [
        ("", {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20sesame"}, "Bearer sesame"),
        ("", {}, None),
        ("us%40er:pass@", {}, "Basic dXNAZXI6cGFzcw=="),
    ],
    ids=["a header", "nothing", "in the URL"],
)
def test_netrc_is_not_read(receiver: Receiver, user: str, environ: dict[str, str], sent: str | None) -> None:
    client = sender(receiver.http_endpoint.replace("://", f"://{user}"), environ=environ)
    assert client.send(b"").disposition == "accepted"
    client.close()
    assert receiver.attempts()[0].headers.get("authorization") == sent


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ("Bearer sesame", r"header 1 is not name=value; write one like authorization=Bearer%20TOKEN"),
        ("x-a=1,sesame", r"header 2 is not name=value"),
        ("x a=sesame", r"header 1 is not name=value"),
        ("authorization=sesam\u00e9", r"the value of header 1 has a control character or one that is"),
        ("authorization=sesam%C3%A9", r"the value of header 1 has"),
        ("authorization=sesame%0Aopen", r"the value of header 1 has"),
        ("authorization=sesame%FF", r"the value of header 1 has"),
        ("authorization=sesame%00", r"the value of header 1 has"),
        (
            f"authorization={'sesame' * 2_000}",
            r"the value of header 1 has 12,000 .*; write at most 8,192",
        ),
    ],
)
def test_a_header_that_cannot_be_sent_is_a_configuration_error(
    protocol: Any, headers: str, message: str
) -> None:
    """Otherwise the export would be sent without its credentials, or always be refused."""
    endpoint = resolve("http://127.0.0.1:1", "POLLER_OTLP_ENDPOINT", protocol)
    with pytest.raises(ConfigError, match=f"^OTEL_EXPORTER_OTLP_HEADERS: {message}") as caught:
        build_sender(endpoint, 1.0, {"OTEL_EXPORTER_OTLP_HEADERS": headers})
    assert "sesam" not in str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_are_read_as_the_standard_specifies(receiver: Receiver, protocol: Any) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": " X-One = a%2Cb , ,x-two=k=v==,authorization=Basic abc==\n",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip\n",
    }
    client = build_sender(endpoint_of(receiver, protocol), 60.0, environ)
    assert client.send(b"").disposition == "accepted"
    client.close()
    sent = receiver.attempts()[0].headers
    assert (sent["x-one"], sent["x-two"], sent["authorization"]) == ("a,b", "k=v==", "Basic abc==")


def test_certificates_replaced_in_place_are_read_for_the_next_grpc_connection(
    certificates: Certificates, tmp_path: Path
) -> None:
    """A rotation needs no restart, although a certificate is outdated and its file missing for a moment."""
    pem, key = tmp_path / "client.pem", tmp_path / "client.key"

    def show(certificate: Path, private: Path) -> None:
        pem.write_bytes(certificate.read_bytes())
        key.write_bytes(private.read_bytes())

    show(certificates.stranger, certificates.stranger_key)
    environ = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": f"{certificates.ca}\n",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(pem),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(key),
    }
    with Receiver(tls=certificates.mtls) as receiver:
        client = build_sender(Endpoint(receiver.grpc_endpoint, "grpc"), 20.0, environ)
        assert client.send(b"").disposition == "retryable"
        pem.unlink()
        assert client.send(b"").disposition == "retryable"
        show(certificates.client, certificates.client_key)
        assert eventually(lambda: client.send(b"").disposition == "accepted", 60)
        client.close()


def test_after_a_rest_a_sender_uses_a_new_channel_with_the_current_certificates(
    certificates: Certificates, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(certificates.ca.read_bytes())
    environ = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(ca_file),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificates.client),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificates.client_key),
    }
    with Receiver(tls=certificates.mtls) as receiver:
        client = build_sender(Endpoint(receiver.grpc_endpoint, "grpc"), 20.0, environ)
        assert client.send(b"").disposition == "accepted"
        client.rest()
        client.rest()
        assert client.send(b"").disposition == "accepted"
        ca_file.write_bytes(certificates.stranger.read_bytes())
        client.rest()
        assert client.send(b"").disposition == "retryable"
        client.close()


def test_a_grpc_sender_at_rest_has_no_connection_and_no_thread(receiver: Receiver) -> None:
    """An open channel would wake the process several times a second between two exports."""
    code = f"""
import os, time
from poller.otlp.sender import build_sender
from poller.model.otlp_endpoint import Endpoint
def threads(): return len(os.listdir("/proc/self/task"))
def sockets():
    files = [f"/proc/self/fd/{{number}}" for number in range(3, 100)]
    return sum("socket:" in os.readlink(file) for file in files if os.path.lexists(file))
client = build_sender(Endpoint({receiver.grpc_endpoint!r}, "grpc"), 20.0, {{}})
for _ in range(2):
    assert client.send(b"").disposition == "accepted"
    assert threads() > 1 and sockets() == 1
    client.rest()
    deadline = time.monotonic() + 30
    while (threads() > 1 or sockets()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (threads(), sockets()) == (1, 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_sent_after_close(receiver: Receiver, protocol: Any) -> None:
    client = build_sender(endpoint_of(receiver, protocol), 20.0, {})
    client.close()
    assert client.send(b"").disposition != "accepted"
    assert receiver.attempts() == []


# --- proxies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_proxy_of_the_environment_is_used_and_named_in_its_errors(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, protocol: Any
) -> None:
    requests: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        requests.append(head(connection))
        connection.sendall(b"HTTP/1.1 502 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    proxy = serve(refuse)
    monkeypatch.setenv("https_proxy", proxy.replace("://", "://user:hunter22@"))
    client = build_sender(resolve("https://collector.test:9", "POLLER_OTLP_ENDPOINT", protocol), 20.0)
    result = client.send(b"")
    client.close()
    assert requests[0].startswith(b"CONNECT collector.test:9")
    assert result.disposition == "retryable"
    assert f"through the proxy {proxy.replace('://', '://***@')}: " in result.reason
    assert "hunter22" not in result.reason


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("hosts", ["example.org,127.0.0.1", "127.0.0.0/8"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_proxy_is_read_in_lower_and_upper_case(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str, hosts: str, protocol: Any
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    # The fixture also restores a value that the poller sets.
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv(variable, hosts)
    client = build_sender(endpoint_of(receiver, protocol), 20.0)
    assert client.send(b"").disposition == "accepted"
    receiver.stop()
    assert "proxy" not in client.send(b"").reason
    client.close()


@pytest.mark.slow
def test_after_a_hang_a_new_channel_opens_its_own_connection(receiver: Receiver, serve: Serve) -> None:
    """Both old connections lose everything that is sent, and the other signal's connection is not shared."""
    opened: list[socket.socket] = []
    hanging: list[socket.socket] = []

    def forward(connection: socket.socket) -> None:
        opened.append(connection)
        with socket.create_connection(("127.0.0.1", receiver.grpc_port)) as server:
            other = {connection: server, server: connection}
            while True:
                for source in select.select(list(other), [], [])[0]:
                    if not (data := source.recv(65536)):
                        return
                    if connection not in hanging:
                        other[source].sendall(data)

    endpoint = Endpoint(serve(forward), "grpc")
    metrics, traces = (build_sender(endpoint, 5.0, {}, signal) for signal in ("metrics", "traces"))
    assert [metrics.send(b"").disposition, traces.send(b"").disposition] == ["accepted", "accepted"]
    hanging += opened
    assert metrics.send(b"").error["error.type"] == "DEADLINE_EXCEEDED"
    assert metrics.send(b"").disposition == "accepted"
    metrics.close()
    traces.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("option", ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"])
def test_a_blank_file_name_is_an_error(protocol: Protocol, option: str) -> None:
    with pytest.raises(ConfigError, match=f"OTEL_EXPORTER_OTLP_{option}: is blank"):
        build_sender(Endpoint("https://127.0.0.1:1", protocol), 1.0, {f"OTEL_EXPORTER_OTLP_{option}": " "})


@pytest.mark.parametrize(
    ("protocol", "option", "missing"),
    [
        ("grpc", "CLIENT_KEY", "CLIENT_CERTIFICATE"),
        ("grpc", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
        ("http/protobuf", "CLIENT_KEY", "CLIENT_CERTIFICATE"),
    ],
)
def test_a_client_certificate_needs_its_key(
    certificates: Certificates, protocol: Protocol, option: str, missing: str
) -> None:
    """gRPC would abort the process at the first request."""
    environ = {f"OTEL_EXPORTER_OTLP_{option}": str(certificates.client_key)}

    with pytest.raises(ConfigError, match=f"_{option}: requires .*_{missing} as well"):
        build_sender(Endpoint("https://127.0.0.1:1", protocol), 1.0, environ)


def test_over_http_the_file_of_a_client_certificate_may_contain_the_key(certificates: Certificates) -> None:
    environ = {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificates.client)}

    build_sender(Endpoint("https://127.0.0.1:1/v1/metrics", "http/protobuf"), 1.0, environ).close()
