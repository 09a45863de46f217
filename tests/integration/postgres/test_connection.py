"""A session uses a suitable host of several, current secrets, and only trusted servers."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.config.load_settings import load
from poller.demo.cluster import Cluster
from poller.model.errors import PollError
from poller.postgres.password import password_from
from poller.postgres.replica import Replica
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.receiver.ports import LOOPBACK
from tests.bed.cleanup import closing_all
from tests.bed.definitions import a_query
from tests.bed.otlp import Certificates
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.programs import lacking
from tests.bed.proxy import Proxy
from tests.bed.replica import a_replica

DEBIAN = Path("/usr/lib/postgresql/15/bin")
ELSEWHERE = {"host": "elsewhere.example", "hostaddr": LOOPBACK}
CERTIFIED = {"sslmode": "require", "user": "certified"}
QUERY = a_query("q", "SELECT 1 AS n")


@dataclass
class Poller:
    """A replica, and the servers that it has used."""

    replica: Replica
    servers: list[ServerInfo] = field(default_factory=list)

    def __call__(self) -> str:
        """Run a query; return the role and port of the server, or the error message."""
        (answer,) = self.replica.fetch([QUERY])
        if answer.error is not None:
            return answer.error.message
        assert answer.rows is not None
        return f"{self.servers[-1].role} {self.servers[-1].port}"

    def error(self) -> PollError:
        (answer,) = self.replica.fetch([QUERY])
        assert answer.error is not None
        return answer.error


Make = Callable[..., Poller]


@pytest.fixture
def make_poller() -> Iterator[Make]:
    """Create replicas of a DSN, or of a function that returns a DSN."""

    def create(dsn: str | Callable[[], str], **arguments: Any) -> Poller:
        servers: list[ServerInfo] = []
        return Poller(a_replica(dsn, **{"on_server_info": [servers.append], **arguments}), servers)

    with closing_all(create, lambda poller: poller.replica.close()) as make:
        yield make


def hosts(*ports: int, **more: str) -> str:
    """Return a keyword string with several hosts."""
    named = {"host": ",".join([LOOPBACK] * len(ports)), "port": ",".join(map(str, ports))}
    return make_conninfo(dbname="postgres", user="postgres", **named, **more)


def uri(*ports: int, **more: str) -> str:
    """Return a URI with several hosts."""
    named = "&".join(f"{name}={value}" for name, value in more.items())
    return f"postgresql://postgres@{','.join(f'{LOOPBACK}:{port}' for port in ports)}/postgres?{named}"


# --- several hosts ------------------------------------------------------------------------------------


@pytest.mark.every_version
@pytest.mark.parametrize("write", [hosts, uri])
@pytest.mark.parametrize(
    ("target", "role"),
    [
        ("any", "primary"), ("standby", "standby"), ("prefer-standby", "standby"), ("read-only", "standby"),
        ("primary", "primary"), ("read-write", "primary"),
    ],
)  # fmt: skip
def test_the_suitable_host_of_several_is_used(
    cluster: Cluster, make_poller: Make, write: Callable[..., str], target: str, role: str
) -> None:
    ports = {"primary": cluster.primary.port, "standby": cluster.standby.port}
    assert make_poller(write(*ports.values(), target_session_attrs=target))() == f"{role} {ports[role]}"


@pytest.mark.every_version
def test_a_primary_is_refused_if_only_a_standby_is_allowed(cluster: Cluster, make_poller: Make) -> None:
    error = make_poller(hosts(cluster.primary.port, target_session_attrs="standby")).error()
    assert error.kind == "unavailable"
    assert "not in hot standby mode" in error.message


@pytest.mark.parametrize("fault", ["refuse", "hang"])
def test_a_first_host_that_is_down_or_hangs_loses_no_answer(
    cluster: Cluster, make_poller: Make, make_proxy: Callable[[int], Proxy], fault: str
) -> None:
    proxy = make_proxy(cluster.standby.port)
    getattr(proxy, fault)()
    poll = make_poller(
        hosts(proxy.port, cluster.standby.port, target_session_attrs="standby"), connect_timeout=5.0
    )
    assert poll() == f"standby {cluster.standby.port}"
    if fault == "hang":
        assert proxy.connections == 1, "the first host was tried"


def test_the_tick_after_a_failover_uses_another_host_and_the_log_names_it(
    make_cluster: Callable[..., Cluster], make_poller: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="poller.postgres.server_tracker")
    cluster = make_cluster()
    primary, standby = cluster.primary.port, cluster.standby.port
    tracker = ServerTracker(60.0)
    poll = make_poller(hosts(primary, standby, target_session_attrs="prefer-standby"))
    servers = poll.servers

    def new_messages() -> list[str]:
        tracker.record(servers[-1])
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    assert poll() == f"standby {standby}"
    assert new_messages() == [f"polling the standby {LOOPBACK}:{standby}"]
    cluster.standby.stop()
    assert poll() == f"primary {primary}", "the very next tick"
    assert new_messages() == [
        f"polling another server: the primary {LOOPBACK}:{primary} instead of {LOOPBACK}:{standby}"
    ]
    cluster.standby.start()
    assert poll() == f"standby {standby}", "a less suitable host is left when possible"
    assert new_messages() == [
        f"polling another server: the standby {LOOPBACK}:{standby} instead of {LOOPBACK}:{primary}"
    ]
    cluster.primary.stop("immediate")
    cluster.standby.execute("SELECT pg_promote()")
    assert poll() == f"primary {standby}"
    (promoted,) = new_messages()
    assert promoted == f"{LOOPBACK}:{standby} is a primary now, was a standby"
    assert servers[-1].timeline == 2


def test_an_open_connection_to_a_promoted_standby_is_replaced_by_a_suitable_host(
    make_cluster: Callable[..., Cluster], cluster: Cluster, make_poller: Make
) -> None:
    other = make_cluster()
    poll = make_poller(hosts(other.standby.port, cluster.standby.port, target_session_attrs="prefer-standby"))
    assert poll() == f"standby {other.standby.port}"
    other.standby.execute("SELECT pg_promote()")
    assert poll() == f"standby {cluster.standby.port}"


# --- secrets that change ------------------------------------------------------------------------------


@dataclass
class Login:
    """A role that logs in by password on a standby."""

    cluster: Cluster
    dsn: str

    def set_password(self, password: str) -> None:
        self.cluster.primary.execute(f"ALTER ROLE poller PASSWORD '{password}'")
        self.cluster.wait_replayed()


@pytest.fixture(scope="module")
def login(pg_bin: Path | None) -> Iterator[Login]:
    with Cluster(pg_bin) as cluster:
        cluster.primary.execute("CREATE ROLE poller LOGIN PASSWORD 'first'")
        cluster.wait_replayed()
        hba = cluster.standby.data_dir / "pg_hba.conf"
        hba.write_text("host all poller 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        cluster.standby.execute("SELECT pg_reload_conf()")
        login = Login(cluster, make_conninfo(cluster.standby.dsn(), user="poller"))
        yield login


@pytest.fixture
def first(login: Login) -> Login:
    login.set_password("secret-1")
    return login


def answers(poll: Poller) -> bool:
    """Return whether a new connection is accepted."""
    poll.replica.rest(1e9)
    return poll().startswith("standby ")


def test_a_rotating_password_is_read_from_every_source_at_every_connect(
    first: Login, make_poller: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, passfile, token, service = (tmp_path / name for name in ("url", "passfile", "token", "service"))
    for file in (url, passfile, token, service):
        file.touch(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    parts = conninfo_to_dict(first.dsn)

    def write(password: str) -> None:
        url.write_text(make_conninfo(first.dsn, password=password) + "\n")
        passfile.write_text(f"*:*:*:poller:{password}\n")
        token.write_text(password + "\n")
        lines = "\n".join(f"{key}={value}" for key, value in {**parts, "password": password}.items())
        service.write_text(f"[here]\n{lines}\n")

    write("secret-1")
    settings = load({"POLLER_DATABASE_URL_FILE": str(url)})
    ways = {
        "file of the URL": make_poller(settings.conninfo),
        "passfile": make_poller(make_conninfo(first.dsn, passfile=str(passfile))),
        "command": make_poller(first.dsn, password=password_from(f"cat {shlex.quote(str(token))}")),
        "service": make_poller("service=here"),
    }
    assert {way: answers(poll) for way, poll in ways.items()} == dict.fromkeys(ways, True)
    first.set_password("secret-2")
    assert {way: answers(poll) for way, poll in ways.items()} == dict.fromkeys(ways, False)
    refused = {poll.error().sqlstate for poll in ways.values()}
    assert refused == {"28P01"}
    write("secret-2")
    assert {way: answers(poll) for way, poll in ways.items()} == dict.fromkeys(ways, True)


@pytest.mark.every_version
@pytest.mark.parametrize("way", ["string", "variable"])
def test_every_parameter_of_a_service_file_applies(
    cluster: Cluster, make_poller: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    service = tmp_path / "service"
    login = f"dbname=postgres\nuser=postgres\nhost={LOOPBACK},{LOOPBACK}\n"
    more = "options=-c search_path=mine\napplication_name=named\ntarget_session_attrs="
    ports = (cluster.standby.port, cluster.primary.port)
    sections = [
        f"[{target}]\n{login}port={','.join(map(str, order))}\n{more}{target}\n"
        for target, order in {"read-write": ports, "standby": ports[::-1]}.items()
    ]
    service.write_text("".join(sections))
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    settings = a_query("q", "SELECT current_setting('search_path'), current_setting('application_name')")
    for target, role in {"read-write": "primary", "standby": "standby"}.items():
        monkeypatch.setenv("PGSERVICE", target if way == "variable" else "")
        poll = make_poller(f"service={target}" if way == "string" else "")
        assert poll() == f"{role} {getattr(cluster, role).port}"
        (answer,) = poll.replica.fetch([settings])
        assert answer.rows is not None
        assert answer.rows.values == [(b"mine", b"named")]


def test_a_missing_or_empty_file_is_reported_and_read_again(
    first: Login, make_poller: Make, tmp_path: Path
) -> None:
    url = tmp_path / "url"
    url.write_text(make_conninfo(first.dsn, password="secret-1"))
    poll = make_poller(load({"POLLER_DATABASE_URL_FILE": str(url)}).conninfo)
    assert answers(poll)
    for spoil, problem in ((url.unlink, "No such file"), (url.touch, "it is empty")):
        spoil()
        assert not answers(poll)
        error = poll.error()
        assert (error.kind, problem in error.message) == ("unavailable", True), error.message
    url.write_text(make_conninfo(first.dsn, password="secret-1"))
    assert answers(poll)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("nowhere-to-be-found --token", "cannot be run: nowhere-to-be-found: No such file or directory$"),
        ("sh -c 'echo unsaid >&2; echo secret; exit 3'", "ended with exit code 3"),
        ("true", "wrote nothing"),
        ("sh -c 'unclosed", "cannot be run: it is not a command line"),
        ("", "cannot be run: it is not a command line"),
        (
            f"{shlex.quote(sys.executable)} -c 'import sys; sys.stdout.buffer.write(bytes([255]))'",
            "text that is not UTF-8",
        ),
    ],
)
def test_a_failing_password_command_is_reported_without_its_output(command: str, message: str) -> None:
    with pytest.raises(PollError, match=message) as raised:
        password_from(command)()
    assert raised.value.kind == "unavailable"
    assert raised.value.hint is not None
    chain = [raised.value, *filter(None, [raised.value.__cause__, raised.value.__context__])]
    text = "".join(str(error) + repr(vars(error)) for error in chain)
    assert "secret" not in text
    assert "unsaid" not in text


def test_a_password_command_that_does_not_end_is_killed(
    tmp_path: Path,
) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(PollError, match=r"did not end within 0\.3s"):
        password_from(f"sh -c 'echo $$ > {pid}; exec sleep 60'", timeout=0.3)()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_only_the_line_break_is_removed_from_a_password() -> None:
    assert password_from("printf ' a b \\r\\n'")() == " a b "


def test_an_interrupt_ends_a_slow_password_command(first: Login, make_poller: Make, tmp_path: Path) -> None:
    """The daemon must end within its grace period, independently of the command."""
    pid = tmp_path / "pid"
    poll = make_poller(first.dsn, password=password_from(f"sh -c 'echo $$ > {pid}; exec sleep 5'"))
    replies: list[str] = []
    polling = threading.Thread(target=lambda: replies.append(poll()))
    polling.start()
    assert eventually(lambda: pid.exists() and pid.read_text().strip() != "")
    poll.replica.interrupt()
    polling.join()
    assert replies in (["stop requested"], ["the password command wrote nothing"])
    assert poll() == "stop requested"


def test_the_daemon_ends_within_its_grace_period_while_the_password_command_hangs(
    first: Login, poller_process: Callable[..., Process]
) -> None:
    process = poller_process(
        "run",
        env={
            "POLLER_DATABASE_URL": first.dsn,
            "POLLER_PASSWORD_COMMAND": "sleep 600",
            "POLLER_GRACE_PERIOD": "2s",
        },
    )
    process.wait_for_line("polling 4 queries")
    process.send(signal.SIGTERM)
    assert process.wait() == 0


# --- TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_server(certificates: Certificates) -> Iterator[Cluster]:
    """A pair whose standby supports TLS, and requires a client certificate from the role `certified`."""
    if not DEBIAN.is_dir():  # the PostgreSQL of the wheel has no TLS
        lacking("PostgreSQL 15 of Debian (apt-get install postgresql-15)")
    with Cluster(DEBIAN) as cluster:
        cluster.primary.execute('CREATE ROLE certified LOGIN; CREATE ROLE "poller@example.org" LOGIN')
        cluster.wait_replayed()
        standby = cluster.standby
        standby.add_file("tls.pem", certificates.server.read_bytes())
        standby.add_file("tls.key", certificates.server_key.read_bytes())
        standby.add_file("ca.pem", certificates.ca.read_bytes())
        hba = standby.data_dir / "pg_hba.conf"
        rules = "hostssl all certified all trust clientcert=verify-ca\nhostnossl all certified all reject\n"
        hba.write_text(rules + hba.read_text())
        standby.configure(ssl="on", ssl_cert_file="tls.pem", ssl_key_file="tls.key", ssl_ca_file="ca.pem")
        standby.restart()
        yield cluster


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sslmode": "require"}, None),
        ({"sslmode": "verify-full", "sslrootcert": "ca"}, None),
        ({"sslmode": "verify-full", "sslrootcert": "stranger"}, "certificate verify failed"),
        ({"sslmode": "verify-full", "sslrootcert": "/nowhere"}, "does not exist"),
        ({"sslmode": "verify-full", "sslrootcert": "ca", **ELSEWHERE}, "host name"),
        ({"sslmode": "verify-ca", "sslrootcert": "ca", **ELSEWHERE}, None),
        ({"sslmode": "disable", "user": "certified"}, "no encryption"),
        (CERTIFIED, "certificate"),
        ({**CERTIFIED, "sslcert": "client", "sslkey": "client_key"}, None),
        ({**CERTIFIED, "sslcert": "stranger", "sslkey": "stranger_key"}, "unknown ca"),
    ],
)
def test_tls_is_as_strict_as_configured(
    tls_server: Cluster,
    certificates: Certificates,
    make_poller: Make,
    changes: dict[str, str],
    message: str | None,
) -> None:
    files = {"sslrootcert", "sslcert", "sslkey"}
    changes = {
        name: str(getattr(certificates, value, value)) if name in files else value
        for name, value in changes.items()
    }
    for name in ("sslkey",):
        if name in changes:
            Path(changes[name]).chmod(0o600)
    answer = make_poller(make_conninfo(tls_server.standby.dsn(), **changes))()
    if message is None:
        assert answer == f"standby {tls_server.standby.port}"
    else:
        assert message in answer.lower()


@pytest.mark.every_version
def test_connection_parameters_of_the_user_override_those_of_the_poller(
    database: Database, make_poller: Make
) -> None:
    dsn = make_conninfo(database.standby_dsn, application_name="mine", connect_timeout="7")
    poll = make_poller(dsn)
    assert poll().startswith("standby ")
    names = database.ask_standby(
        "SELECT application_name FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert names == [("mine",)]


class ScramServer:
    """Requests 2^31 iterations of SCRAM, which take an hour of computing."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.dsn = make_conninfo(
            host=LOOPBACK,
            port=self._listener.getsockname()[1],
            user="u",
            password="p",
            dbname="d",
            sslmode="disable",
            gssencmode="disable",
        )
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self.connections += 1
            with contextlib.suppress(OSError), client, client.makefile("rb") as stream:
                stream.read(struct.unpack("!I", stream.read(4))[0] - 4)
                self._ask(client, 10, b"SCRAM-SHA-256\0\0")
                stream.read(1)
                first = stream.read(struct.unpack("!I", stream.read(4))[0] - 4)
                nonce = first.rpartition(b"r=")[2] + b"server"
                self._ask(client, 11, b"r=" + nonce + b",s=c2FsdHNhbHQ=,i=2147483647")
                stream.read(1)

    @staticmethod
    def _ask(client: socket.socket, kind: int, text: bytes) -> None:
        client.sendall(b"R" + struct.pack("!II", len(text) + 8, kind) + text)


ASK_TWICE = """\
import os, sys
from poller.postgres.replica import Replica
from poller.postgres.transaction import TransactionLimits
from tests.bed.definitions import a_query

replica = Replica(lambda: sys.argv[1], connect_timeout=3, limits=TransactionLimits(1))
for _ in range(2):
    (answer,) = replica.fetch([a_query()])
    print(answer.error.kind, answer.error.message, sep=": ", flush=True)
os._exit(0)  # as the daemon ends: a thread of libpq still computes
"""


def test_an_excessive_scram_iteration_count_is_abandoned_and_computed_once() -> None:
    """The test uses a process, because only its end stops the computing thread."""
    server = ScramServer()
    done = subprocess.run(
        [sys.executable, "-c", ASK_TWICE, server.dsn], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "unavailable: connecting took longer than 12s",
        "unavailable: an earlier attempt to connect still computes",
    ]
    assert server.connections == 1
