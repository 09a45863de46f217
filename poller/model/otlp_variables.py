"""Reader of the standard OTEL_* variables: of the exporter of one signal, of the resource and of the SDK.

It imports no library, because both the daemon and `poller.events` need it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, MutableMapping
from pathlib import Path
from urllib.parse import unquote

from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.files import read_regular
from poller.model.otlp_endpoint import PROTOCOLS, Endpoint, Protocol, Signal
from poller.model.secrets import show_path
from poller.model.text import unknown_choice

MAX_TLS_BYTES = 1 << 20
"""Maximum size of a key or certificate file."""
LONGEST_HEADER = 8_192
"""Maximum characters of a header's value; HTTP and gRPC servers reject longer ones by default."""
_FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
_HEADER_NAME = re.compile(r"[a-z0-9_.-]{1,256}")
"""Header names that both HTTP/1.1 (RFC 9110, 5.6.2) and gRPC ("PROTOCOL-HTTP2", Custom-Metadata) can send."""
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_SDK_LIMIT = re.compile(r"OTEL_(\w+_)?(COUNT|LENGTH)_LIMIT")
"""Limits of attributes, events and links. Importing the SDK raises ValueError if one of them is not a whole
number."""


class OtlpVariables:
    """The OTLP exporter variables; the signal's own variable takes precedence over the general variable.

    Source: OpenTelemetry specification, protocol/exporter.md, "Configuration Options". A method raises
    ConfigError with all problems of its variables; no message contains a part of a header.
    """

    def __init__(self, environ: Mapping[str, str], signal: Signal) -> None:
        self.environ = environ
        self.signal = signal
        self._prefixes = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_", "OTEL_EXPORTER_OTLP_")

    def read(self, option: str) -> str | None:
        """Return the value of `option`, such as HEADERS; None if it is unset or empty."""
        name = self.where(option)
        return self.environ[name].rstrip("\r\n") if name else None

    def where(self, option: str) -> str | None:
        """Return the name of the variable that sets `option`; None if it is unset or empty."""
        names = (prefix + option for prefix in self._prefixes)
        return next((name for name in names if self.environ.get(name, "").strip()), None)

    def disabled_by(self) -> str | None:
        """Return the name of the variable that disables the export of the signal; None if there is none."""
        choices = {"OTEL_SDK_DISABLED": "true", f"OTEL_{self.signal.upper()}_EXPORTER": "none"}
        return next((n for n, off in choices.items() if self.environ.get(n, "").strip().lower() == off), None)

    def protocol(self) -> Protocol | None:
        """Return the protocol; None if it is unset."""
        where, text = self.where("PROTOCOL"), self.read("PROTOCOL")
        if where is None or text is None:
            return None
        if (protocol := PROTOCOLS.get(text.strip().lower())) is None:
            raise ConfigError([invalid(where, unknown_choice(text, list(PROTOCOLS), "http/protobuf"))])
        return protocol

    def is_plain_text(self, endpoint: Endpoint) -> bool:
        """Return whether the endpoint's scheme or, without one, the variable INSECURE disables TLS."""
        if endpoint.plain_text is not None:
            return endpoint.plain_text
        return (self.read("INSECURE") or "").strip().lower() == "true"

    def files(self, protocol: Protocol) -> dict[str, Path]:
        """Return the files with certificates and the key by option, such as CLIENT_KEY."""
        files: dict[str, Path] = {}
        problems = [
            # The SDK's exporters would use the blank name.
            invalid(name, "is blank; write the path of a file, or unset it")
            for name in (prefix + option for option in _FILES for prefix in self._prefixes)
            if self.environ.get(name) and not self.environ[name].strip()
        ]
        for option in _FILES:
            where, name = self.where(option), self.read(option)
            if where is None or name is None:
                continue
            files[option] = Path(name)
            try:
                # Libraries read files of any kind and size; a pipe would block them.
                read_regular(files[option], MAX_TLS_BYTES)
            except OSError as error:
                # The variable may hold the key itself instead of its file's name.
                path_text = (
                    show_path(name) if option == "CLIENT_KEY" or not name.isprintable() else repr(name)
                )
                problems.append(invalid(where, f"{path_text} cannot be read: {error.strerror}"))
        problems += self._incomplete_pair(files, protocol)
        if problems:
            raise ConfigError(problems)
        return files

    def _incomplete_pair(self, files: Collection[str], protocol: Protocol) -> list[Diagnostic]:
        """Report a key without a certificate or, for gRPC, the reverse: gRPC aborts the process for either.

        Over HTTP, the file of the certificate may also contain the key.
        """
        pair = {"CLIENT_CERTIFICATE", "CLIENT_KEY"}
        if len(pair.intersection(files)) != 1 or (protocol != "grpc" and "CLIENT_KEY" not in files):
            return []
        (given,), (missing,) = pair.intersection(files), pair.difference(files)
        return [invalid(self.where(given) or "", f"requires {self._prefixes[1]}{missing} as well; set both")]

    def headers(self) -> dict[str, str]:
        """Return the headers of `name=value,name=value` with %-escaped values, with names in lower case.

        An invalid header is an error, because an export without its credentials would fail without a reason.
        """
        headers: dict[str, str] = {}
        problems: list[str] = []
        for number, item in enumerate((self.read("HEADERS") or "").split(","), 1):
            if not item.strip():
                continue
            name, equals, value = (unquote(part).strip() for part in item.partition("="))
            # The message omits the item, which may be part of a secret.
            if not equals or not _HEADER_NAME.fullmatch(name.lower()):
                problems.append(
                    f"header {number} is not name=value; write one like authorization=Bearer%20TOKEN, "
                    "and a comma in a value as %2C"
                )
            elif not _HEADER_VALUE.fullmatch(value):
                problems.append(
                    f"the value of header {number} has a control character or one that is not ASCII, which "
                    "no header can carry; write it in another form, Base64 for example"
                )
            elif len(value) > LONGEST_HEADER:
                problems.append(
                    f"the value of header {number} has {len(value):,} characters; "
                    f"write at most {LONGEST_HEADER:,}"
                )
            headers[name.lower()] = value
        if problems:
            raise ConfigError([invalid(self.where("HEADERS") or "", problem) for problem in problems])
        return headers


def resource_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of OTEL_RESOURCE_ATTRIBUTES, with %-escaped values."""
    items = (item.partition("=") for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    return {name.strip(): unquote(value.strip()) for name, equals, value in items if equals}


def sdk_problems(environ: Mapping[str, str]) -> list[Diagnostic]:
    """Return the problems of SDK limits that would make its import fail."""
    return [
        invalid(name, f"{value!r} is not a whole number; write one like 128, or unset the variable")
        for name, value in sorted(environ.items())
        if value.strip() and _SDK_LIMIT.fullmatch(name) and not re.fullmatch(r"\s*[0-9]+\s*", value)
    ]


def prepare_grpc(environ: MutableMapping[str, str]) -> None:
    """Set the variables of gRPC's core, which it reads when it is loaded."""
    # The core writes to stderr without using a logger. Errors that matter also arrive as a status.
    environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The core reads this variable only in lower case, and all other variables in both cases.
    if "NO_PROXY" in environ:
        environ.setdefault("no_proxy", environ["NO_PROXY"])
