"""Build the programs of the ecosystem from published Go modules, once per machine and version.

    python -m tests.ecosystem.builds

The programs are stored in `~/.cache/obscura-poller-tests` (or below `XDG_CACHE_HOME`), in a folder for each
module, version of Go and content of `go.mod`, `go.sum` and `main.go`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.bed import programs

FOLDER = Path(__file__).parent
Program = Literal["collector", "prometheus", "promtool", "victoria-metrics", "vmalert-tool"]


@dataclass(frozen=True)
class Module:
    """A Go module in this folder."""

    name: str
    title: str
    version_of: str
    """The module whose version the documentation names."""
    programs: dict[Program, str]
    """The programs that it builds, with their packages."""
    tags: str = ""

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def version(self) -> str:
        """Return the version of `version_of` in go.mod."""
        match = re.search(rf"^\s*(?:require )?{self.version_of} (v\S+)", self._text("go.mod"), re.MULTILINE)
        if match is None:
            raise LookupError(f"{self.folder}/go.mod does not require {self.version_of}")
        return match[1]

    def _text(self, file: str) -> str:
        return (self.folder / file).read_text(encoding="utf-8")

    def stored(self) -> Path:
        """Return the folder of its programs, which need not exist."""
        files = [path for path in sorted(self.folder.iterdir()) if path.suffix in {".go", ".mod", ".sum"}]
        content = [
            self.tags,
            *self.programs.values(),
            _go_version(),
            *(path.read_text(encoding="utf-8") for path in files),
        ]
        key = hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]
        return _cache() / f"{self.name}-{key}"

    def build(self) -> Path:
        """Return the folder of its programs, built if they are missing. Several processes may call it.

        Raises CalledProcessError, after Go has printed the reason.
        """
        target = self.stored()
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=target.parent) as built:
                    self._build(Path(built) / "programs")
                    (Path(built) / "programs").rename(target)
        return target

    def _build(self, target: Path) -> None:
        target.mkdir()
        # Programs without symbols are smaller.
        options = ["-mod=readonly", "-ldflags=-s -w", f"-tags={self.tags}", "-o", f"{target}/"]
        subprocess.run(["go", "build", *options, *self.programs.values()], cwd=self.folder, check=True)


MODULES = (
    Module(
        "collector",
        "OpenTelemetry Collector",
        "go.opentelemetry.io/collector/otelcol",
        {"collector": "."},
    ),
    Module(
        "prometheus",
        "Prometheus",
        "github.com/prometheus/prometheus",
        {
            "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        },
        tags="remove_all_sd",  # the tests configure no service discovery
    ),
    Module(
        "victoriametrics",
        "VictoriaMetrics",
        "github.com/VictoriaMetrics/VictoriaMetrics",
        {
            "victoria-metrics": "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics",
            "vmalert-tool": "github.com/VictoriaMetrics/VictoriaMetrics/app/vmalert-tool",
        },
    ),
)
_MODULE_OF = {program: module for module in MODULES for program in module.programs}


def need(program: Program) -> str:
    """Return the path of a program that was built.

    Skips the test if Go is not installed or the program was not built. CI builds it, so there the test fails.
    """
    programs.need("go", None)
    path = _MODULE_OF[program].stored() / program
    if not path.exists():
        programs.lacking(f"{program} (python -m tests.ecosystem.builds)")
    return str(path)


def table() -> str:
    """Return a table of the modules and their versions for the documentation."""
    rows = [f"| {module.title} | {module.version} | `{module.version_of}` |" for module in MODULES]
    return "\n".join(["| program | version | module |", "|---|---|---|", *rows])


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "obscura-poller-tests"


def _go_version() -> str:
    return subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout


def main() -> None:
    try:
        for module in MODULES:
            print(f"{module.name} {module.version}: {module.build()}")
    except FileNotFoundError as error:
        print(f"WARNING: {error.filename} is not installed, so the ecosystem was NOT tested", file=sys.stderr)


if __name__ == "__main__":
    main()
