"""Carry OTLP over HTTP, and say why where the exporter would not."""

from __future__ import annotations

import logging
from typing import Any

import requests

logger = logging.getLogger("opentelemetry.exporter.otlp")
"""The exporters' own, where `poller.export` listens for reasons."""


class Session(requests.Session):
    """What the OTLP exporter for HTTP (1.45) sends with; three of its gaps are closed here."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks["response"].append(_judge)

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Tell the reason of a failure; the exporter tells it only when there is time to try again."""
        try:
            return super().request(*args, **kwargs)
        except Exception as error:
            logger.warning("%s: %s", type(error).__name__, error)
            raise

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Keep OTEL_EXPORTER_OTLP_CERTIFICATE, which REQUESTS_CA_BUNDLE would take the place of."""
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


def _judge(response: requests.Response, **_: object) -> None:
    if response.status_code >= 400:
        logger.warning("HTTP %s: %s", response.status_code, response.reason)
    elif response.status_code >= 300:
        # The exporter follows no redirect and takes it for a success: everything would be lost unseen.
        response.close()
        raise ValueError(f"HTTP {response.status_code}: the collector is elsewhere; correct the endpoint")
