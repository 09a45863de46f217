"""One PostgreSQL server on 127.0.0.1, started, stopped and killed by its own process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

import psycopg

from poller.demo.programs import ClusterError, Programs
from poller.receiver.ports import LOOPBACK

StopMode = Literal["smart", "fast", "immediate"]
"""smart waits for the clients to leave, fast ends their transactions, immediate is a crash with a goodbye."""

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


class Server:
    """A data directory and, while it runs, the postmaster on it; the port stays the same throughout."""

    def __init__(self, programs: Programs, data_dir: Path, port: int) -> None:
        """Name an initialised data directory; its parent takes the log file and the Unix socket."""
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
        """Return a connection URL over TCP; nobody is asked for a password on loopback."""
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{dbname}"

    def configure(self, **settings: str) -> None:
        """Append settings to postgresql.conf, each a name and its value unquoted; read at the next start."""
        with (self.data_dir / "postgresql.conf").open("a") as file:
            for name, value in settings.items():
                quoted = value.replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")

    def add_file(self, name: str, content: bytes) -> Path:
        """Write a file into the data directory that only the server's user reads: a TLS key, say."""
        path = self.data_dir / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        self._programs.account.own(path)
        return path

    def start(self) -> None:
        """Start and wait until connections are accepted; raises ClusterError with the log otherwise."""
        if self.running:
            return
        deadline = time.monotonic() + _START_SECONDS
        while not self._started(deadline):
            # The backends of a killed postmaster hold its shared memory for a moment longer.
            if "shared memory block" not in self._log_tail() or time.monotonic() > deadline:
                raise ClusterError(f"the server in {self.data_dir} did not start: {self._log_tail()}")
            time.sleep(0.05)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop and wait for the end; raises ClusterError (and kills) after 30 s."""
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
        """Take the postmaster away by SIGKILL, as the kernel does when memory is short.

        Its backends see that and leave by themselves: an idle one at once, a computing one when it looks.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def promote(self) -> None:
        """Make a standby a primary and wait until it is."""
        self.execute("SELECT pg_promote(true, 60)")

    def execute(self, sql: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one or more statements in autocommit and return the rows of the last; none without a result."""
        with psycopg.connect(self.dsn(dbname), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def free_shared_memory(self) -> None:
        """Free what a killed postmaster left in the kernel: all else it had was in its directory."""
        if self.running:
            return
        words = self._pid_file(_SHARED_MEMORY_LINE).split()
        ipcrm = shutil.which("ipcrm")
        if ipcrm and len(words) == 2:
            subprocess.run([ipcrm, "-m", words[1]], stderr=subprocess.DEVNULL, check=False)  # noqa: S603 - fixed command

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
        """One line of postmaster.pid: the server writes there how far it is, for pg_ctl and for us."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[line].strip() if line < len(lines) else ""

    def _log_tail(self, characters: int = 2000) -> str:
        with self.log_path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - characters))
            return log.read().decode(errors="replace").strip()
