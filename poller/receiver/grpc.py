"""OTLP listener over gRPC."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc

from poller.receiver.answers import retry_info, status
from poller.receiver.listener import Take, Tls
from poller.receiver.signals import KINDS, ExportRequest, ExportResponse, SignalKind


class GrpcListener:
    """The three OTLP services on one port."""

    def __init__(self, host: str, port: int, tls: Tls | None, take: Take) -> None:
        """Start listening; raises OSError if the port is in use."""
        # gRPC's core writes to stderr without using a logger.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        self._take = take
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="otlp-grpc")
        # Two servers on one port would share its connections, and a port in use would go unnoticed.
        self._server = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(tuple(map(self._handler, KINDS)))
        address = f"{host}:{port}"
        try:
            bound = (
                self._server.add_insecure_port(address)
                if tls is None
                else self._server.add_secure_port(address, _grpc_credentials(tls))
            )
        except RuntimeError as error:
            self._threads.shutdown()
            problem = "the port is in use, or the address is not one of this host"
            raise OSError(f"cannot listen on {address}: {problem}") from error
        if bound != port:
            self._threads.shutdown()
            raise OSError(f"cannot listen on {address}")
        self._server.start()

    def stop(self) -> None:
        """Stop listening and cut every connection; the caller must release hanging requests first."""
        self._server.stop(grace=None).wait()
        self._threads.shutdown()

    def _handler(self, kind: SignalKind) -> Any:
        export = grpc.unary_unary_rpc_method_handler(
            partial(self._export, kind),
            request_deserializer=kind.request.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
        return grpc.method_handlers_generic_handler(kind.service, {"Export": export})

    def _export(self, kind: SignalKind, request: ExportRequest, context: Any) -> ExportResponse:
        headers = {key.lower(): str(value) for key, value in context.invocation_metadata()}
        answer = self._take("grpc", headers, request)
        if answer.cut:
            context.cancel()
        elif not answer.accepts:
            if answer.retry_after is not None:
                details = status(answer)
                # The first key is gRPC's convention; OpenTelemetry's Python exporter reads the second.
                context.set_trailing_metadata(
                    (
                        ("grpc-status-details-bin", details.SerializeToString()),
                        ("google.rpc.retryinfo-bin", retry_info(answer.retry_after).SerializeToString()),
                    )
                )
            context.abort(grpc.StatusCode[answer.grpc], answer.message)
        return kind.response(answer)


def _grpc_credentials(tls: Tls) -> Any:
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=tls.client_ca.read_bytes() if tls.client_ca else None,
        require_client_auth=tls.client_ca is not None,
    )
