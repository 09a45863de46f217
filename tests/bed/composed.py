"""The compose file, and its two PostgreSQL servers without containers, with the same scripts and commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from poller.demo.postgres import Account, Programs, make_directory
from tests.bed.process import ROOT, Process

FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]

# The image's entry point does this before it runs the command. Loopback requires a password as well, because
# here the replica connects over TCP.
_SET_UP = """
initdb --username=postgres --pwfile=password --auth-local=trust --auth-host=scram-sha-256 >/dev/null
pg_ctl -o "-c listen_addresses= $OPTIONS" -w start >/dev/null
export PGHOST="$PWD" PGPORT="$PORT"
psql --username postgres --dbname postgres --quiet --command "CREATE DATABASE $POSTGRES_DB"
psql -v ON_ERROR_STOP=1 --username postgres --dbname "$POSTGRES_DB" --quiet --file 10-schema.sql
psql -v ON_ERROR_STOP=1 --username postgres --dbname "$POSTGRES_DB" --quiet --file 15-rows.sql
. ./20-roles.sh
pg_ctl -m fast -w stop >/dev/null
"""


class Servers:
    """Both servers of the compose file, in one folder."""

    def __init__(self, folder: Path, programs: Programs, start: Callable[..., Process]) -> None:
        self._folder, self._programs, self._start = folder, programs, start

    def primary(self, port: int) -> Process:
        service = SERVICES["primary"]
        for volume in service["volumes"]:
            here, there, _ = volume.split(":")
            self._put(Path(there).name, (FILE.parent / here).read_text(encoding="utf-8"))
        self._put("password", service["environment"]["POSTGRES_PASSWORD"])
        command = " ".join(service["command"])
        return self._run(f"{_SET_UP}\nexec {command} $OPTIONS -c listen_addresses=127.0.0.1", "primary", port)

    def replica(self, port: int, primary: int) -> Process:
        service = SERVICES["replica"]
        script = Path(service["entrypoint"][1]).name
        (mounted,) = [volume.split(":")[0] for volume in service["volumes"]]
        self._put(script, (FILE.parent / mounted).read_text(encoding="utf-8"))
        address = service["environment"]["PRIMARY"].replace("primary", f"127.0.0.1 port={primary}")
        run = f"exec sh ./{script} $OPTIONS -c listen_addresses=127.0.0.1"
        return self._run(run, "replica", port, PRIMARY=address)

    def healthy(self, service: str, port: int) -> bool:
        """Return whether the service's health check succeeds for the server at `port`."""
        kind, name, *arguments = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        command = [str(self._programs.directory / name), *arguments, f"--port={port}"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _put(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text, encoding="utf-8")
        (self._folder / name).chmod(0o644)

    def _run(self, script: str, name: str, port: int, **more: str) -> Process:
        """Run a script as PostgreSQL's account, with the variables of the image and of the service."""
        account = self._programs.account
        variables = {
            "PATH": f"{self._programs.directory}:{os.defpath}",
            "LC_ALL": "C",
            "PORT": str(port),
            "OPTIONS": f"-p {port} -c unix_socket_directories={self._folder}",
            "POSTGRES_USER": "postgres",
            **SERVICES[name]["environment"],
            "PGDATA": str(self._folder / name),
            "ROLE_SQL": str(self._folder / "role.sql"),
            **more,
        }
        switch = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        return self._start(
            [
                *(switch if os.geteuid() == 0 else []),
                *(
                    "env",
                    "-i",
                    f"--chdir={self._folder}",
                    *(f"{key}={value}" for key, value in variables.items()),
                ),
                *("sh", "-euc", script),
            ]
        )


@contextmanager
def servers(pg_bin: Path | None, start: Callable[..., Process]) -> Iterator[Servers]:
    """Yield the servers; `start` starts processes and kills them at the end."""
    account = Account.choose()
    folder = make_directory(account)
    try:
        yield Servers(folder, Programs.find(pg_bin, account).within_reach(folder), start)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
