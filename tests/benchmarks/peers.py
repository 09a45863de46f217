"""The programs that ours is measured beside: found, or fetched into a folder of the benchmark's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

DEBIAN = {"postgres_exporter": "prometheus-postgres-exporter", "sql_exporter": "prometheus-sql-exporter"}


def query_exporter(folder: Path) -> Path | str:
    """Its program, from PyPI in a virtual environment in `folder`; or why there is none."""
    venv = folder / "query-exporter"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, capture_output=True)
        install = [str(venv / "bin/pip"), "install", "-q", "query-exporter", "psycopg2-binary"]
        subprocess.run(install, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        return f"pip could not install it: {_last_line(error)}"
    return venv / "bin/query-exporter"


def debian(name: str, folder: Path) -> Path | str:
    """A program of DEBIAN, installed or unpacked from its package into `folder`; or why there is none."""
    package = DEBIAN[name]
    if found := shutil.which(package):
        return Path(found)
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


def version(program: Path) -> str:
    """What it says of its own version, in one line."""
    shown = subprocess.run([program, "--version"], capture_output=True, text=True)
    return (shown.stdout or shown.stderr).strip().splitlines()[0]


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else str(error)
