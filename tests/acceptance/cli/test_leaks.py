"""No secret leaks: secrets are in every setting, every operation fails, and no output contains a secret.

Each part of a planted secret contains the word SESAME, so that the search also finds a part. A case is a
line: the planted text, and the expected message, which proves that the intended failure occurred.
"""

# ruff: noqa: E501 - a case is a line of a table
from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import re
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import grpc
import pytest

from poller.receiver.ports import free_ports
from poller.receiver.receiver import Receiver
from tests.bed.postgres import Database
from tests.bed.process import ROOT, Process
from tests.bed.queries import write_queries
from tests.bed.terminal import Terminal

Start = Callable[..., Process]

MARK = "sesame"


# --- the search


def leaks(text: str, secrets: Mapping[str, str]) -> list[str]:
    """Return every form of one of `secrets` (by user) or of the mark that occurs in `text`."""
    leaked = [MARK] if MARK in text.lower() else []
    for user, secret in secrets.items():
        leaked += [form for form in forms(user, secret) if form in text]
    return leaked


def forms(user: str, secret: str) -> set[str]:
    raw = (secret, f"{user}:{secret}")
    encoded = {base64.b64encode(text.encode()).decode().rstrip("=") for text in raw}
    encoded |= {base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in raw}
    return {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], *encoded}


@pytest.mark.parametrize(
    "written",
    [
        "{0}",
        "x{0}y",
        '{{"password": "{0}"}}',
        "{0!r}",
        "{1}",
        "{2}",
        "{3}",
        "Basic {4}",
    ],
)
def test_the_search_finds_a_secret_in_every_form(written: str) -> None:
    """The secret has no mark, so that only the search for its forms can find it."""
    secret = "pa ss'w\\ord/é@1?"
    text = written.format(
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(secret.encode()).decode(),
        base64.b64encode(f"me:{secret}".encode()).decode(),
    )
    assert leaks(text, {"me": secret})
    assert leaks("a message with SESAME in it", {}) == [MARK]
    assert leaks("password=*** user=me", {"me": secret}) == []


# --- servers that repeat their input


class Echo:
    """Servers on 127.0.0.1 that refuse every client and repeat its input in every field."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.database = self._serve(self._speak_postgres)
        self.cut = self._serve(lambda _: None)
        self._grpc = grpc.server(futures.ThreadPoolExecutor(2))
        self._grpc.add_generic_rpc_handlers((_Handler(self.received),))
        self.grpc = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        self.http = {kind: self._serve_http(kind) for kind in ("401", "403", "400", "503", "307", "garbled")}

    def close(self) -> None:
        self._grpc.stop(None).wait()
        for server, thread in self._servers:
            server.shutdown()
            server.server_close()
            thread.join()

    _servers: list[tuple[socketserver.BaseServer, threading.Thread]]

    def _start(self, server: socketserver.BaseServer) -> int:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self.__dict__.setdefault("_servers", []).append((server, thread))
        port: int = server.server_address[1]  # type: ignore[assignment,index]  # a pair for TCP
        return port

    def _serve(self, speak: Callable[[socket.socket], None]) -> int:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, struct.error):
                    speak(self.request)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        return self._start(server)

    def _speak_postgres(self, connection: socket.socket) -> None:
        """Request the password in plain text, and repeat it (protocol 3.0, "Message Formats")."""
        while True:
            (length,) = struct.unpack("!i", _take(connection, 4))
            startup = _take(connection, length - 4)
            if struct.unpack("!i", startup[:4])[0] not in (80877103, 80877104):
                break
            connection.sendall(b"N")  # neither TLS nor GSSAPI
        connection.sendall(struct.pack("!cii", b"R", 8, 3))
        _take(connection, 1)
        (length,) = struct.unpack("!i", _take(connection, 4))
        password = _take(connection, length - 4).rstrip(b"\0").decode()
        parameters = startup[4:].replace(b"\0", b" ").decode()
        self.received.append(f"{parameters} {password}")
        encoded = base64.b64encode(password.encode()).decode()
        text = f"{password} is wrong, as are {encoded} {quote(password)} {password!r} {parameters}"
        fields = [b"SFATAL", b"VFATAL", b"C28P01", *(kind + text.encode() for kind in (b"M", b"D", b"H"))]
        body = b"".join(part + b"\0" for part in fields) + b"\0"
        connection.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    def _serve_http(self, kind: str) -> int:
        echo = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                request = (
                    f"{self.path} {' '.join(f'{name}: {value}' for name, value in self.headers.items())}"
                )
                echo.received.append(request)
                body = json.dumps({"error": request, "again": repr(request)})
                head = [
                    f"HTTP/1.0 {kind if kind.isdigit() else 403} {request}",
                    f"Location: /elsewhere?{quote(request)}",
                    f"Content-Length: {len(body)}",
                    *([] if kind.isdigit() else [request]),  # urllib3 logs a line that is not a header
                ]
                self.wfile.write("\r\n".join([*head, "", body]).encode())

            def log_message(self, *_: object) -> None:
                """Write no access log."""

        return self._start(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    def __init__(self, received: list[str]) -> None:
        self._received = received

    def service(self, details: Any) -> Any:
        metadata = " ".join(f"{name}={value}" for name, value in details.invocation_metadata)
        self._received.append(metadata)

        def refuse(_: bytes, context: Any) -> bytes:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"not with {metadata} {quote(metadata)}")
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(refuse)


def _take(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise OSError("the client closed the connection")
        data += more
    return data


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


# --- the bed

_FORGE = """
import json, os, sys
import poller.cli.app, poller.cli.poll, poller.cli.settings, rich.console, rich.table
for line in sys.stdin:
    call = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(call["env"])
        os.chdir(call["cwd"])
        for number, name in enumerate(("/dev/null", call["stdout"], call["stderr"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.argv = ["poller", *call["arguments"]]
        code = 1
        try:
            poller.cli.app.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str


class Forge:
    """Runs commands in processes forked after the imports, because imports take most of the time of a command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORGE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: tuple[str, ...], env: Mapping[str, str], cwd: Path, outputs: Path) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        written = [outputs / f"{name} {uuid.uuid4()}" for name in ("stdout", "stderr")]
        call = {"arguments": arguments, "env": {**os.environ, **env}, "cwd": str(cwd)}
        call |= {"stdout": str(written[0]), "stderr": str(written[1])}
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Outcome(code, *(path.read_text(errors="replace") for path in written))

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@dataclass
class Bed:
    """Environment of the processes: every file that they write is below `home`."""

    home: Path
    plants: Path
    start: Start
    forge: Forge
    echo: Echo
    places: dict[str, str]
    secrets: dict[str, str] = field(default_factory=dict)
    """Planted secrets without the mark, by user."""

    def fill(self, text: str) -> str:
        for name, value in self.places.items():
            text = text.replace(f"<{name}>", value)
        return text

    def run(self, *arguments: str, env: Mapping[str, str]) -> Process:
        """Start `poller ARGUMENTS...` in `home`, and replace the placeholders in the values of `env`."""
        process: Process = self.start(*arguments, env=self._surroundings(env), cwd=self.home)
        return process

    def do(self, *arguments: str, env: Mapping[str, str]) -> Outcome:
        """Run `poller ARGUMENTS...` (`poll` or `settings`) in the same way, and wait until it ends."""
        return self.forge.run(arguments, self._surroundings(env), self.home, self.plants)

    def _surroundings(self, env: Mapping[str, str]) -> dict[str, str]:
        surroundings = {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "POLLER_QUERIES": self.places["queries"],
            "POLLER_CONNECT_TIMEOUT": "2s",
            "POLLER_EXPORT_TIMEOUT": "1s",
            "POLLER_LOG_LEVEL": "debug",
        }
        return surroundings | {name: self.fill(value) for name, value in env.items()}

    def assert_no_secret(self, *processes: Process | Outcome, message: str) -> None:
        """Assert that the output contains no part of a secret, and that it matches the pattern `message`."""
        text = "".join(process.stdout + process.stderr for process in processes)
        files = [path for path in self.home.rglob("*") if path.is_file()]
        for written in (
            text,
            *(path.read_text(errors="replace") for path in files),
            "".join(map(str, files)),
        ):
            assert leaks(written, self.secrets) == [], written
        assert re.search(self.fill(message), text), text


@pytest.fixture
def bed(tmp_path: Path, poller_process: Start, forge: Forge, echo: Echo) -> Bed:
    home, plants = tmp_path / "home", tmp_path / "plants"
    home.mkdir()
    plants.mkdir()
    places = {
        "queries": write_queries(tmp_path, ("one", "SELECT 1 AS n"), interval="5s", timeout="1s"),
        "closed": str(free_ports(1)[0]),
        "echo": str(echo.database),
        "cut": str(echo.cut),
        "grpc": str(echo.grpc),
        **{f"http {kind}": str(port) for kind, port in echo.http.items()},
        "plants": str(plants),
        "python": sys.executable,
    }
    return Bed(home, plants, poller_process, forge, echo, places)


# --- databases

REFUSED = "refused|failed"
ODD = "does not understand the connection string"
FOREIGN = "does not know the parameter token"
HERE = "127.0.0.1:<closed>"

CONNECTION_STRINGS = {
    "refused": (f"postgresql://me:Sesame@{HERE}/db", REFUSED),
    "cut off": ("postgresql://me:Sesame@127.0.0.1:<cut>/db", "closed the connection"),
    "unknown host": ("postgresql://me:Sesame@no-such-host.invalid/db", "resolve"),
    "no host name": ("postgresql://me:Sesame@a..b/db", ODD),
    "escaped": (f"postgresql://me:Sesame%40s%65same%2Fsesame%25@{HERE}/db", REFUSED),
    "bad escape": (f"postgresql://me:Sesame%zz@{HERE}/db", ODD),
    "half an escape": (f"postgresql://me:Sesame%@{HERE}/db", ODD),
    "null": (f"postgresql://me:Sesame%00@{HERE}/db", ODD),
    "unescaped @": (f"postgresql://me:Sesame@Sesame@{HERE}/db", ODD),
    "unescaped /": (f"postgresql://me:Sesame/Sesame@{HERE}/db", ODD),
    "a port before /": (f"postgresql://me:5432/Sesame@{HERE}/db", ODD),
    "unescaped ?": (f"postgresql://me:Sesame?Sesame@{HERE}/db", REFUSED),
    "unescaped ?name=": (f"postgresql://me:Sesame?host=Sesame@{HERE}/db", REFUSED),
    "unescaped @ and ?": (f"postgresql://me:Sesame@x?dbname=Sesame@{HERE}/db", "resolve"),
    "unescaped #": (f"postgresql://me:Sesame#Sesame@{HERE}/db", REFUSED),
    "unescaped :": (f"postgresql://me:Sesame:Sesame@{HERE}/db", REFUSED),
    "unescaped blank": (f"postgresql://me:Sesame sesame@{HERE}/db", ODD),
    "bracket": (f"postgresql://me:Sesame@[Sesame@{HERE}/db", ODD),
    "host forgotten": ("postgresql://me:Sesame/db", ODD),
    "users of several hosts": (f"postgresql://me:Sesame1@{HERE},you:Sesame2@{HERE}/db", ODD),
    "several hosts": (f"postgresql://me:Sesame@{HERE},a.invalid:1/db?target_session_attrs=standby", REFUSED),
    "several ports": ("host=127.0.0.1,h port=1,2,3 password=Sesame", "3 port"),
    "parameter": (f"postgresql://me@{HERE}/db?password=Sesame&sslpassword=Sesame", REFUSED),
    "unknown parameter": (f"postgresql://me@{HERE}/db?token=Sesame", FOREIGN),
    "bad sslmode": (f"postgresql://me:Sesame@{HERE}/db?sslmode=strict", "sslmode"),
    "port too high": ("postgresql://me:Sesame@127.0.0.1:99999/db", "99999"),
    "no service": ("service=missing password=Sesame", "missing"),
    "words": ("host=127.0.0.1 port=<closed> user=me password=Sesame", REFUSED),
    "quoted": (r"host=127.0.0.1 port=<closed> user=me password='Sesame\'s \\ \"Sesame\"'", REFUSED),
    "blank": ("host=127.0.0.1 port=<closed> password=Sesame sesame user=me", ODD),
    "blank and =": ("host=127.0.0.1 port=<closed> password=Sesame sesame=sesame user=me", ODD),
    "open quote": ("host=127.0.0.1 password='Sesame sesame", ODD),
    "quote within": ("host=127.0.0.1 password='Sesame'sesame' port=1", ODD),
    "upper case": ("host=127.0.0.1 PASSWORD=Sesame", ODD),
    "nothing of it": ("Sesame", ODD),
    "another scheme": (f"mysql://me:Sesame@{HERE}/db", ODD),
    "URL as database": ("host=127.0.0.1 port=<echo> dbname=postgresql://me:Sesame@h/d", ODD),
    "URL as host": ("host=postgresql://me:Sesame@h/d", ODD),
    "key's password": (f"postgresql://me@{HERE}/db?sslkey=x&sslpassword=Sesame&options=-c%20a.b%3DSesame", REFUSED),
    "repeated": ("postgresql://me:Sesame%20%22it%27s%22%3F@127.0.0.1:<echo>/db", "28P01|is wrong"),
    "repeated words": (r"host=127.0.0.1 port=<echo> user=me password='it\'s Sesame'", "28P01|is wrong"),
    "repeated options": ("host=127.0.0.1 port=<echo> user=me password=x options='-c a.b=Sesame'", "is wrong"),
    "no such encoding": ("postgresql://me:Sesame\udcff@127.0.0.1/db", ODD),
}  # fmt: skip
"""Planted connection string and expected message; <closed> and similar names are ports of the bed."""

FORMATS = ("table", "json", "prometheus", "otlp-json")


@pytest.mark.parametrize("case", CONNECTION_STRINGS)
def test_no_error_in_a_connection_string_shows_its_secrets(bed: Bed, case: str) -> None:
    """A poll at debug level and `poller settings` are run; the output formats alternate."""
    conninfo, message = CONNECTION_STRINGS[case]
    turn = list(CONNECTION_STRINGS).index(case)
    env = {"POLLER_DATABASE_URL": conninfo, "POLLER_LOG_FORMAT": ("text", "json")[turn % 2]}
    polling = bed.do("poll", "--format", FORMATS[turn % 4], env=env)
    settings = bed.do("settings", "--format", ("table", "json")[turn % 2], env=env)
    # Only a connection attempt resolves the host name.
    code = 2 if message in (ODD, FOREIGN) and case != "no host name" else 1
    assert (polling.code, settings.code) == (code, 0), f"{polling}{settings}"
    bed.assert_no_secret(polling, message=message)
    bed.assert_no_secret(settings, message=r"database_url")


@pytest.mark.parametrize("case", ["refused", "unescaped @", "bad escape", "repeated", "repeated options"])
@pytest.mark.parametrize("command", ["doctor", "run"])
def test_doctor_and_daemon_show_no_connection_string(bed: Bed, command: str, case: str) -> None:
    conninfo, message = CONNECTION_STRINGS[case]
    process = bed.run(command, env={"POLLER_DATABASE_URL": conninfo, "POLLER_LOG_FORMAT": "json"})
    if command == "run" and message == ODD:
        assert process.wait() == 2
    elif command == "run":
        process.wait_for_line("unavailable")
        line = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert MARK not in line.lower()
        process.send(signal.SIGTERM)
        assert process.wait() == 0
    else:
        assert process.wait() == 1
    bed.assert_no_secret(process, message=message)


def test_the_echo_server_received_the_secrets(bed: Bed) -> None:
    """Otherwise the cases with the echo server would prove nothing."""
    bed.secrets["me"] = 'Sesame "it\'s"?'
    env = {"POLLER_DATABASE_URL": CONNECTION_STRINGS["repeated"][0]}
    process = bed.do("poll", env=env)
    assert process.code == 1
    assert any('Sesame "it\'s"?' in request for request in bed.echo.received)
    bed.assert_no_secret(process, message=r"\*\*\* is wrong")


_PRINT = '<python> -c "print(bytes([83,101,115,97,109,101,49,50]).decode())"'
SURROUNDINGS: dict[str, tuple[dict[str, str], str]] = {
    "PGPASSWORD": ({"PGHOST": "127.0.0.1", "PGPORT": "<echo>", "PGPASSWORD": "Sesame 'x"}, "is wrong"),
    "PGOPTIONS": ({"PGHOST": "127.0.0.1", "PGPORT": "<echo>", "PGPASSWORD": "Sesame", "PGOPTIONS": "-c a.b=Sesame"}, "is wrong"),
    "PGHOST": ({"PGHOST": "postgresql://me:Sesame@127.0.0.1/db"}, "resolve"),
    "PGDATABASE": ({"PGHOST": "127.0.0.1", "PGPORT": "<echo>", "PGPASSWORD": "x", "PGDATABASE": "postgresql://me:Sesame@127.0.0.1/db"}, "is wrong"),
    "passfile": ({"POLLER_DATABASE_URL": "host=127.0.0.1 port=<echo> user=me passfile=<plants>/passfile"}, "is wrong"),
    "missing passfile": ({"POLLER_DATABASE_URL": "host=127.0.0.1 port=<echo> passfile=<plants>/none"}, "no password supplied"),
    "service file": ({"PGSERVICE": "one", "PGSERVICEFILE": "<plants>/services"}, "is wrong"),
    "broken service file": ({"PGSERVICE": "one", "PGSERVICEFILE": "<plants>/broken"}, "syntax error"),
    "file": ({"POLLER_DATABASE_URL_FILE": "<plants>/url"}, "is wrong"),
    "file named by a secret": ({"POLLER_DATABASE_URL_FILE": "postgresql://me:Sesame@h/db"}, "cannot be read"),
    "file named by a password": ({"POLLER_PASSWORD_COMMAND_FILE": "/Sesame/x"}, "cannot be read"),
    "file of a long name": ({"POLLER_DATABASE_URL_FILE": "Sesame" * 100}, "cannot be read"),
    "file and variable": ({"POLLER_DATABASE_URL_FILE": "<plants>/url", "POLLER_DATABASE_URL": "password=Sesame"}, "unset one of them"),
    "file of bytes": ({"POLLER_DATABASE_URL_FILE": "<plants>/bytes"}, "not UTF-8 text"),
    "file with a null": ({"POLLER_DATABASE_URL_FILE": "<plants>/null"}, ODD),
    "command": ({"POLLER_DATABASE_URL": "host=127.0.0.1 port=<echo> user=me", "POLLER_PASSWORD_COMMAND": _PRINT}, "is wrong"),
    "command's line": ({"POLLER_DATABASE_URL": "host=127.0.0.1 port=<echo>", "POLLER_PASSWORD_COMMAND": "/nowhere/get --token=Sesame"}, "cannot be run"),
    "command's output": ({"POLLER_DATABASE_URL": "host=x", "POLLER_PASSWORD_COMMAND": "sh -c 'echo Sesame; echo Sesame >&2; exit 3'"}, "exit code 3"),
    "command's quotes": ({"POLLER_DATABASE_URL": "host=x", "POLLER_PASSWORD_COMMAND": "get 'Sesame"}, "not a command line"),
    "command's bytes": ({"POLLER_DATABASE_URL": "host=x", "POLLER_PASSWORD_COMMAND": r"printf 'Sesame\377'"}, "the password command"),
    "command alone": ({"POLLER_PASSWORD_COMMAND": "get --token Sesame"}, "is not set"),
    "a name of no setting": ({"POLLER_DATABASE_PASSWORD": "Sesame", "POLLER_DATABASE_URI": "Sesame"}, "is not set"),
    "other settings wrong": ({"POLLER_DATABASE_URL": "postgresql://me:Sesame@h/db", "POLLER_INTERVAL": "never", "POLLER_PASSWORD_COMMAND": "Sesame"}, "never"),
}  # fmt: skip


@pytest.mark.parametrize("case", SURROUNDINGS)
def test_no_other_source_of_a_password_shows_it(bed: Bed, case: str) -> None:
    env, message = SURROUNDINGS[case]
    passfile = bed.plants / "passfile"
    passfile.write_text("*:*:*:*:Sesame in a file\n")
    passfile.chmod(0o600)
    service = bed.fill("[one]\nhost=127.0.0.1\nport=<echo>\nuser=me\npassword=Sesame in a service\n")
    (bed.plants / "services").write_text(service)
    (bed.plants / "broken").write_text("[one]\nhost=127.0.0.1\nSesame\n")
    (bed.plants / "url").write_text(bed.fill("postgresql://me:Sesame@127.0.0.1:<echo>/db\n"))
    (bed.plants / "bytes").write_bytes(b"postgresql://me:Sesame\xff@h/db")
    (bed.plants / "null").write_bytes(bed.fill(f"postgresql://me:Sesame\0Sesame@{HERE}/db").encode())
    turn = list(SURROUNDINGS).index(case)
    polling = bed.do("poll", "--format", FORMATS[turn % 4], env=env)
    settings = bed.do("settings", env=env)
    assert (polling.code in (1, 2), settings.code in (0, 2)) == (True, True), f"{polling}{settings}"
    bed.assert_no_secret(polling, message=message)
    bed.assert_no_secret(settings, message="")


@pytest.mark.parametrize("case", ["unescaped @", "repeated", "nothing of it"])
def test_a_secret_from_an_option_is_not_shown(bed: Bed, case: str) -> None:
    conninfo, message = CONNECTION_STRINGS[case]
    options = [
        "--database-url",
        bed.fill(conninfo),
        "--otlp-endpoint",
        "http://me:Sesame@127.0.0.1:1/?a=Sesame",
    ]
    options += ["--otlp-protocol", "http/protobuf"]
    polling = bed.do("poll", "--push", *options, env={})
    settings = bed.do("settings", *options, "--password-command", "get Sesame", env={})
    assert (polling.code, settings.code) == (2 if message == ODD else 1, 0), f"{polling}{settings}"
    bed.assert_no_secret(polling, message=message)
    bed.assert_no_secret(settings, message="option --database-url")


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("dbname=missing password=Sesame", 'database "missing" does not exist'),
        ("user=absent password=Sesame", 'role "absent" does not exist'),
        ("password=x options='-c a.b=Sesame -c statement_timeout=never'", "invalid value for parameter"),
        ("password=Sesame sslmode=require", "SSL"),
        ("password=Sesame sslmode=verify-full sslrootcert=/nowhere/ca.pem", "SSL|ca.pem"),
        ("password=Sesame target_session_attrs=primary", "standby|read-only|recovery"),
    ],
)
def test_a_refusal_by_a_real_server_shows_no_secret(
    bed: Bed, database: Database, added: str, message: str
) -> None:
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    conninfo = make_conninfo(database.standby_dsn, **conninfo_to_dict(added))
    process = bed.do("poll", "--format", "json", env={"POLLER_DATABASE_URL": conninfo})
    assert process.code == 1, process
    bed.assert_no_secret(process, message=message)


# --- collectors

_HEADERS = "authorization=Bearer%20Sesame%2F%20Sesame,api-key=Sesame%27s"
_AWAY = "UNAVAILABLE|DEADLINE_EXCEEDED"
"""On a busy machine the timeout of a second may expire before the failure is known."""
_KEY = "-----BEGIN PRIVATE KEY-----\nSesame\n-----END PRIVATE KEY-----\n"
COLLECTORS: dict[str, tuple[dict[str, str], str]] = {
    "gRPC 16": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": _HEADERS, "POLLER_EXPORT_TIMEOUT": "30s"}, "UNAUTHENTICATED"),
    "gRPC refused": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<closed>", "OTEL_EXPORTER_OTLP_HEADERS": _HEADERS}, _AWAY),
    "gRPC unknown host": ({"POLLER_OTLP_ENDPOINT": "http://no-such.invalid:4317", "OTEL_EXPORTER_OTLP_METRICS_HEADERS": _HEADERS}, _AWAY),
    "gRPC no TLS there": ({"POLLER_OTLP_ENDPOINT": "https://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": _HEADERS}, _AWAY),
    "gRPC traced": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": _HEADERS, "GRPC_VERBOSITY": "debug", "GRPC_TRACE": "all", "POLLER_EXPORT_TIMEOUT": "30s"}, "UNAUTHENTICATED"),
    "gRPC bad header": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Sesame%0ASesame"}, "has a control character or one that is not ASCII"),
    "gRPC bad name": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": "api%20key=Sesame%27s"}, "is not name=value"),
    "gRPC not ASCII": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=Sesame%C3%A9"}, "has a control character or one that is not ASCII"),
    "gRPC user": ({"POLLER_OTLP_ENDPOINT": "http://me:Sesame@127.0.0.1:<grpc>"}, "gRPC cannot send"),
    "gRPC user without scheme": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "me:Sesame@127.0.0.1:<grpc>"}, "gRPC cannot send"),
    "no scheme": ({"POLLER_OTLP_ENDPOINT": "me:Sesame@127.0.0.1:<grpc>"}, "gRPC cannot send|http://"),
    "other scheme": ({"POLLER_OTLP_ENDPOINT": "grpc://me:Sesame@127.0.0.1:<grpc>"}, "gRPC cannot send|http://"),
    "unescaped /": ({"POLLER_OTLP_ENDPOINT": "http://me:443/Sesame@127.0.0.1:4318"}, "after its host"),
    "unescaped ?": ({"POLLER_OTLP_ENDPOINT": "http://me:443?Sesame@127.0.0.1:4318"}, "after its host"),
    "unescaped ?name=": ({"POLLER_OTLP_ENDPOINT": "http://me:Sesame?a=Sesame@127.0.0.1:4318"}, "not a URL"),
    "unescaped #": ({"POLLER_OTLP_ENDPOINT": "http://me:443#Sesame@127.0.0.1:4318"}, "after its host"),
    "bad port": ({"POLLER_OTLP_ENDPOINT": "http://me:Sesame@127.0.0.1:port"}, "not a URL"),
    "no host": ({"POLLER_OTLP_ENDPOINT": "http://me:Sesame@"}, "user name"),
    "header without name": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": "Bearer Sesame"}, "is not name=value"),
    "header with comma": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=Sesame,Sesame"}, "is not name=value"),
    "header unescaped": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": "api key=Sesame;\"Sesame\"\\é"}, "is not name=value"),
    "HTTP header without name": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<http 401>", "POLLER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS": "Bearer Sesame"}, "is not name=value"),
    **{
        f"HTTP {kind}": ({"POLLER_OTLP_ENDPOINT": f"http://me:it%27s%20Sesame@127.0.0.1:<http {kind}>/?key=Sesame%2F", "POLLER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=Sesame%27s"}, "export (failed|refused)")
        for kind in ("401", "403", "400", "503", "307", "garbled")
    },
    "HTTP basic": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<http 401>", "POLLER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20bWU6U2VzYW1l"}, "HTTP 401|Unauthorized|export failed"),
    "HTTP refused": ({"POLLER_OTLP_ENDPOINT": "http://me:Sesame@127.0.0.1:<closed>/?key=Sesame", "POLLER_OTLP_PROTOCOL": "http/protobuf"}, "export failed"),
    "HTTP unknown host": ({"POLLER_OTLP_ENDPOINT": "http://me:Sesame@no-such.invalid:4318/?key=Sesame"}, "export failed"),
    "HTTP no TLS there": ({"POLLER_EXPORT_TIMEOUT": "5s", "POLLER_OTLP_ENDPOINT": "https://me:Sesame@127.0.0.1:<http 401>/?key=Sesame", "POLLER_OTLP_PROTOCOL": "http/protobuf"}, "export failed"),
    "HTTP bad header": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<http 401>", "POLLER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Sesame%0ASesame"}, "has a control character or one that is not ASCII"),
    "HTTP not Latin": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<http 401>", "POLLER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=Sesame%E2%82%AC"}, "has a control character or one that is not ASCII"),
    "HTTP bad proxy": ({"POLLER_OTLP_ENDPOINT": "http://collector:4318", "http_proxy": "http://me:Sesame@127.0.0.1:port"}, "export failed"),
    "HTTP proxy refused": ({"POLLER_OTLP_ENDPOINT": "http://collector:4318", "http_proxy": "http://me:Sesame@127.0.0.1:<closed>"}, "export failed.* through the proxy http://\\*\\*\\*@127"),
    "gRPC bad proxy": ({"POLLER_OTLP_ENDPOINT": "http://collector:4317", "http_proxy": "http://me:Sesame@127.0.0.1:<closed>"}, "export failed.* through the proxy http://\\*\\*\\*@127"),
    "key for its file": ({"POLLER_OTLP_ENDPOINT": "https://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_CLIENT_KEY": _KEY}, "CLIENT_KEY: .* cannot be read"),
    "key on one line": ({"POLLER_OTLP_ENDPOINT": "https://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_CLIENT_KEY": "Sesame"}, "CLIENT_KEY: .* cannot be read"),
    "key in a broken file": ({"POLLER_OTLP_ENDPOINT": "https://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_CLIENT_KEY": "<plants>/key", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "<plants>/key"}, "export failed"),
    "HTTP key in a broken file": ({"POLLER_EXPORT_TIMEOUT": "5s", "POLLER_OTLP_ENDPOINT": "https://127.0.0.1:<http 401>", "POLLER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_CLIENT_KEY": "<plants>/key", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "<plants>/key"}, "export failed"),
    "certificates for their file": ({"POLLER_OTLP_ENDPOINT": "https://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": _KEY}, "cannot be read"),
    "compression": ({"POLLER_OTLP_ENDPOINT": "http://127.0.0.1:<grpc>", "OTEL_EXPORTER_OTLP_HEADERS": _HEADERS, "OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}, "zip|export failed"),
}  # fmt: skip


@pytest.mark.parametrize("case", COLLECTORS)
def test_no_answer_of_a_collector_shows_a_credential(bed: Bed, case: str) -> None:
    env, message = COLLECTORS[case]
    (bed.plants / "key").write_text(_KEY)
    bed.secrets["me"] = "it's Sesame"
    turn = list(COLLECTORS).index(case)
    env = {
        "POLLER_DATABASE_URL": f"postgresql://me:Sesame@{HERE}/db",
        "POLLER_LOG_FORMAT": ("text", "json")[turn % 2],
        **env,
    }
    polling = bed.do("poll", "--push", "--format", FORMATS[turn % 4], env=env)
    settings = bed.do("settings", "--format", ("table", "json")[turn % 2], env=env)
    assert (polling.code in (1, 2), settings.code in (0, 2)) == (True, True), f"{polling}{settings}"
    bed.assert_no_secret(polling, message=message)
    bed.assert_no_secret(settings, message="")


@pytest.mark.parametrize("case", ["gRPC 16", "HTTP 401", "HTTP 307", "HTTP refused", "key for its file"])
def test_doctor_shows_no_credential_for_a_collector(bed: Bed, case: str) -> None:
    (bed.plants / "key").write_text(_KEY)
    bed.secrets["me"] = "it's Sesame"
    env = {"POLLER_DATABASE_URL": f"postgresql://me:Sesame@{HERE}/db", **COLLECTORS[case][0]}
    process = bed.run("doctor", "--format", "json", env=env)
    assert process.wait() == 1, process
    bed.assert_no_secret(process, message='"check": "collector"')


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_exported_data_contain_no_secret(
    bed: Bed, database: Database, receiver: Receiver, protocol: str
) -> None:
    """In a successful run with all settings and traces, attributes, resource and log contain no secret."""
    env = {
        "POLLER_DATABASE_URL": database.standby_dsn.replace("@", ":Sesame@") + "?options=-c%20a.b%3DSesame"
        if "://" in database.standby_dsn
        else f"{database.standby_dsn} password=Sesame options='-c a.b=Sesame'",
        "PGPASSWORD": "Sesame",
        "POLLER_PASSWORD_COMMAND": "echo Sesame",
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint
        if protocol == "grpc"
        else receiver.http_endpoint.replace("//", "//me:Sesame@"),
        "POLLER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_HEADERS": _HEADERS,
        "POLLER_EXPORT_INTERVAL": "1s",
        "POLLER_STATE_DIR": str(
            bed.home / "state"
        ),  # below `home`, so that stored exports are searched as well
        "GRPC_VERBOSITY": "debug",
        "GRPC_TRACE": "http,call_error,api",
    }
    process = bed.run("run", env=env)
    process.wait_for_line("polling the standby")
    assert receiver.wait_for(lambda points: any(point.metric == "one_count" for point in points))
    line = Path(f"/proc/{process.pid}/cmdline").read_text()
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process
    requests = receiver.requests()
    assert any(MARK in str(received.headers).lower() for received in requests)  # the header has to contain it
    for received in requests:
        assert leaks(str(received.request), {}) == []
    assert leaks(line, {}) == []
    bed.assert_no_secret(process, message="stopped")


def test_a_blank_in_the_secret_of_an_option_does_not_show_the_rest(bed: Bed) -> None:
    settings = bed.do("settings", "--database-url", "host=x", "password=Sesame", env={})
    assert settings.code == 2
    bed.assert_no_secret(settings, message="unexpected")


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_query_error_shows_no_secret_from_the_connection_options(
    bed: Bed, database: Database, form: str, tmp_path: Path
) -> None:
    from psycopg.conninfo import make_conninfo

    (tmp_path / "asking").mkdir()
    sql = "SELECT current_setting('a.b')::int AS n"
    env = {
        "POLLER_DATABASE_URL": make_conninfo(database.standby_dsn, options="-c a.b=Sesame"),
        "POLLER_QUERIES": write_queries(tmp_path / "asking", ("asking", sql), interval="5s"),
    }
    poll = bed.do("poll", "--format", form, env=env)
    assert poll.code == 1
    bed.assert_no_secret(poll, message="invalid input syntax")


def test_a_password_that_is_short_or_the_user_name_leaves_the_log_readable(start_process: Start) -> None:
    """A password that equals the user name is not masked, and a short password is masked only as a whole word."""
    code = (
        "from poller.model.redaction import learn_conninfo, redact; "
        "learn_conninfo('postgresql://postgres:postgres@h/postgres'); learn_conninfo('host=h password=poll'); "
        "print(redact('postgresql://postgres@h polling, 1 poll; write postgresql://user:password@host/db'))"
    )
    process = start_process([sys.executable, "-c", code])
    assert process.wait() == 0, process
    assert (
        process.stdout == "postgresql://postgres@h polling, 1 ***; write postgresql://user:password@host/db\n"
    )


# --- use as a library, and unexpected exceptions

_LIBRARY = """
import logging, sys
from poller.postgres.replica import Replica
from poller.postgres.transaction import TransactionLimits
from poller.model.query import MetricDefinition
from poller.model.query import QueryDefinition
from poller.model.otlp_endpoint import resolve
from poller.otlp.exporter import MetricExporter, resource
from poller.otlp.sending_queue import SendingQueue
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for name in ("psycopg", "psycopg.pool", "opentelemetry", "urllib3", "requests", "grpc", "apscheduler"):
    logging.getLogger(name).setLevel(logging.DEBUG)
metric = MetricDefinition(name="n", description="d", unit="1", value_column="n")
query = QueryDefinition(name="q", sql="SELECT 1 AS n", metrics=(metric,), interval=5, timeout=1, max_age=9)
for conninfo in sys.stdin.read().split(chr(0)):
    replica = Replica(lambda: conninfo, connect_timeout=2, limits=TransactionLimits(1))
    (answer,) = replica.fetch([query])
    replica.close()
    error = answer.error
    print(error, repr(error), error.hint, vars(error), repr(error.__cause__), repr(error.__context__))
    logging.error("failed %r", answer, exc_info=error)
for where in sys.argv[1:]:
    endpoint = resolve(where, "POLLER_OTLP_ENDPOINT", "http/protobuf")
    push = MetricExporter(endpoint, resource("s", "i", "1"), SendingQueue(None, max_size=2**20, max_age=60.0))
    push.meter.create_counter("c").add(1)
    print(push.flush(0.5), repr(endpoint), endpoint)
    push.shutdown(0.1)
"""


def test_libraries_that_log_everything_log_no_secret(bed: Bed, start_process: Start) -> None:
    """The poller's logging is not configured, so that the output of the libraries is not masked."""
    strings = [bed.fill(conninfo) for conninfo, _ in CONNECTION_STRINGS.values() if "\udcff" not in conninfo]
    listed = bed.plants / "strings"
    listed.write_text("\0".join(strings))
    endpoints = [
        bed.fill(f"http://me:Sesame%27s@127.0.0.1:<http {kind}>/?key=Sesame") for kind in bed.echo.http
    ]
    endpoints.append(bed.fill("http://me:Sesame@127.0.0.1:<closed>/?key=Sesame"))
    script = _LIBRARY.replace("sys.stdin.read()", f"open({str(listed)!r}).read()")
    process = start_process(
        [sys.executable, "-c", script, *endpoints],
        env={"OTEL_EXPORTER_OTLP_HEADERS": _HEADERS, "HOME": str(bed.home)},
    )
    assert process.wait(120) == 0, process
    assert process.stdout.count("PollError(") == len(strings)
    assert process.stdout.count("False ") == len(endpoints)
    bed.assert_no_secret(process, message="DEBUG:urllib3")


_DEFECTS = {
    "in a tick": """
from threading import Event
from types import SimpleNamespace
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.model.tick import Tick
begun = Event()
class Target(SimpleNamespace):
    def run(self, queries, on_server):
        begun.set()
        raise RuntimeError("no good: " + url)
daemon = PollScheduler(QueueConfig())
target = Target(name="", connections=1, server=lambda: "s", rest=lambda seconds: None)
daemon.replace(target, [Tick("one", (SimpleNamespace(name="q"),), 60.0, 0.0)], {"q"})
daemon.start()
begun.wait(60)
assert daemon.stop(lambda: None, 60)
""",
    "in a thread": """
import threading
def work(): raise RuntimeError(url)
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "in the end": "raise RuntimeError(url)",
    "in a record": """
import logging
logging.getLogger("other").warning("%s", url, extra={"url": url, "of": {"url": url}}, stack_info=True)
""",
    "in a warning": "import warnings; warnings.warn(url)",
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("case", _DEFECTS)
def test_an_unexpected_exception_shows_no_secret(
    bed: Bed, start_process: Start, case: str, form: str
) -> None:
    code = (
        "import os; from poller.telemetry import logging as logs; "
        f"logs.configure({form!r}, 'debug'); url = os.environ['POLLER_DATABASE_URL']\n{_DEFECTS[case]}"
    )
    env = {"POLLER_DATABASE_URL": "postgresql://me:Sesame%27s@h/db", "PGPASSWORD": "Sesame's"}
    process = start_process([sys.executable, "-c", code], env=env)
    process.wait()
    bed.assert_no_secret(process, message=r"me:\*\*\*@h/db")


def test_a_terminal_shows_no_secret(on_terminal: Callable[..., Terminal]) -> None:
    """On a terminal, `poller settings` draws another table."""
    terminal = on_terminal(
        "settings",
        width=200,
        POLLER_DATABASE_URL="postgresql://me:Sesame@Sesame@h/db",
        POLLER_PASSWORD_COMMAND="get Sesame",
        POLLER_OTLP_ENDPOINT="http://me:Sesame@c:4318/?key=Sesame",
    )
    terminal.wait()
    assert leaks(terminal.text, {}) == []
    assert "database_url" in terminal.text
