"""The programs that the poller is compared with: installed, or fetched into the benchmark's folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.ecosystem.builds import SOURCES

COLLECTOR = next(source for source in SOURCES if source.name == "collector")
DEBIAN = {"postgres_exporter": "prometheus-postgres-exporter", "sql_exporter": "prometheus-sql-exporter"}


def query_exporter(folder: Path) -> Path | str:
    """Return the program, from PyPI in a virtual environment in `folder`; or the reason why it is missing."""
    venv = folder / "query-exporter"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, capture_output=True)
        install = [str(venv / "bin/pip"), "install", "-q", "query-exporter", "psycopg2-binary"]
        subprocess.run(install, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        return f"pip could not install it: {_last_line(error)}"
    return venv / "bin/query-exporter"


def debian(name: str, folder: Path) -> Path | str:
    """Return a program of DEBIAN, installed or unpacked into `folder`; or the reason why it is missing."""
    package = DEBIAN[name]
    if installed := shutil.which(package):
        return Path(installed)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "it is Debian's, and this is no Debian"
    try:
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, capture_output=True)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder / package], check=True, capture_output=True)
    except (subprocess.CalledProcessError, ValueError) as error:
        why = _last_line(error) if isinstance(error, subprocess.CalledProcessError) else "no package came"
        return f"apt-get could not download it: {why}"
    return folder / package / "usr/bin" / package


def collector() -> Path | str:
    """Return the Collector of tests/ecosystem, or the reason why it is missing."""
    if shutil.which("go") is None:
        return "Go is not installed"
    program = COLLECTOR.stored() / "collector"
    return program if program.exists() else "python -m tests.ecosystem.builds builds it"


def version(program: Path) -> str:
    """Return the first line of its own version message."""
    output = subprocess.run([program, "--version"], capture_output=True, text=True)
    return (output.stdout or output.stderr).strip().splitlines()[0]


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else str(error)
