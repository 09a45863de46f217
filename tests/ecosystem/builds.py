"""Build the programs of the ecosystem from published packages, once per machine and version.

    python -m tests.ecosystem.builds
    python -m tests.ecosystem.builds kubernetes-server

The second command builds programs that are too expensive for CI; tests that need them skip without them.
The programs are stored in `~/.cache/obscura-poller-tests` (or below `XDG_CACHE_HOME`), in a folder for each
source, version of its toolchain and content of its files.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from tests.bed import programs

FOLDER = Path(__file__).parent
Program = Literal[
    "collector", "prometheus", "promtool", "victoria-metrics", "vmalert-tool", "helm", "kustomize",
    "producer-go", "producer-rust", "producer.js", "kube-apiserver", "etcd",
]  # fmt: skip


@dataclass(frozen=True)
class Source(ABC):
    """A folder with the source of programs, and the packages that they need."""

    name: str
    """The folder's path below this one."""
    version_of: dict[str, str]
    """The packages whose versions the documentation lists, by the name of the product."""
    programs: dict[Program, str]
    """The programs that it builds, with their Go packages or files."""
    tags: str = ""

    TOOL: ClassVar[str]
    """The program that builds it."""
    VERSION_COMMAND: ClassVar[tuple[str, ...]]
    FILES: ClassVar[tuple[str, ...]]
    """Patterns of the files that it is built from."""
    VERSION: ClassVar[tuple[str, str]]
    """A file and the pattern of the version in it, with `{}` for the package."""

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    def version(self, product: str) -> str:
        """Return the version of a product of `version_of`."""
        file, pattern = self.VERSION
        package = self.version_of[product]
        text = (self.folder / file).read_text(encoding="utf-8")
        match = re.search(pattern.format(re.escape(package)), text, re.MULTILINE)
        if match is None:
            raise LookupError(f"{self.folder / file} does not require {package}")
        return match[1]

    def files(self) -> Iterator[Path]:
        """Yield the files that it is built from."""
        yield from sorted(path for pattern in self.FILES for path in self.folder.glob(pattern))

    @functools.cached_property
    def toolchain(self) -> str:
        """Return the version of its toolchain; empty if that is missing, or installed without a version."""
        if not all(map(programs.is_installed, (self.TOOL, self.VERSION_COMMAND[0]))):
            return ""
        done = subprocess.run(self.VERSION_COMMAND, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""  # rustup has a `cargo` without a toolchain

    def stored(self) -> Path:
        """Return the folder of its programs, which need not exist."""
        content = [self.tags, *self.programs.values(), self.toolchain]
        content += [path.read_text(encoding="utf-8") for path in self.files()]
        key = hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]
        return _cache() / f"{self.name.replace('/', '-')}-{key}"

    def build(self) -> Path:
        """Return the folder of its programs, built if they are missing. Several processes may call it.

        Raises CalledProcessError, after the tool has printed the reason.
        """
        target = self.stored()
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=target.parent) as built:
                    folder = Path(built) / "programs"
                    folder.mkdir()
                    self._build(folder)
                    folder.rename(target)
        return target

    @abstractmethod
    def _build(self, target: Path) -> None:
        """Write the programs to the empty folder `target`."""


class GoModule(Source):
    """A Go module."""

    TOOL = "go"
    VERSION_COMMAND = ("go", "version")
    FILES = ("*.go", "go.mod", "go.sum")
    VERSION = ("go.mod", r"^\s*(?:require )?{} (v\S+)")

    def _build(self, target: Path) -> None:
        # Programs without symbols are smaller.
        options = ["-mod=readonly", "-ldflags=-s -w", f"-tags={self.tags}"]
        for program, package in self.programs.items():
            command = ["go", "build", *options, "-o", str(target / program), package]
            subprocess.run(command, cwd=self.folder, check=True)


class RustCrate(Source):
    """A Rust crate; Cargo selects the versions of indirect dependencies at the time of the build."""

    TOOL = "cargo"
    VERSION_COMMAND = ("cargo", "--version")
    FILES = ("Cargo.toml", "src/*.rs")
    VERSION = ("Cargo.toml", r'^{} = \{{ version = "=(.+?)"')

    def _build(self, target: Path) -> None:
        with tempfile.TemporaryDirectory() as built:
            crate, output = Path(built) / "crate", Path(built) / "output"
            for path in self.files():  # not in place, because Cargo writes a file there
                copy = crate / path.relative_to(self.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
            options = ["--quiet", "--target-dir", str(output)]
            subprocess.run(["cargo", "build", *options], cwd=crate, check=True)
            for program in self.programs:
                shutil.copy(output / "debug" / program, target)


class NpmPackage(Source):
    """A package for Node.js; its programs are its files."""

    TOOL = "npm"
    VERSION_COMMAND = ("node", "--version")
    FILES = ("*.js", "package.json", "package-lock.json")
    VERSION = ("package.json", r'"{}": "(.+)"')

    def _build(self, target: Path) -> None:
        for path in self.files():
            shutil.copy(path, target)
        # The packages need none of their scripts.
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=target, check=True)


SOURCES: tuple[Source, ...] = (
    GoModule(
        "collector",
        {"OpenTelemetry Collector": "go.opentelemetry.io/collector/otelcol"},
        {"collector": "."},
    ),
    GoModule(
        "prometheus",
        {"Prometheus": "github.com/prometheus/prometheus"},
        {
            "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        },
        tags="remove_all_sd",  # the tests configure no service discovery
    ),
    GoModule(
        "victoriametrics",
        {"VictoriaMetrics": "github.com/VictoriaMetrics/VictoriaMetrics"},
        {
            "victoria-metrics": "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics",
            "vmalert-tool": "github.com/VictoriaMetrics/VictoriaMetrics/app/vmalert-tool",
        },
    ),
    GoModule(
        "kubernetes",
        {"Helm": "helm.sh/helm/v4", "kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
        {"helm": "helm.sh/helm/v4/cmd/helm", "kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
    ),
    GoModule(
        "producers/go",
        {"OpenTelemetry SDK for Go": "go.opentelemetry.io/otel/sdk/metric"},
        {"producer-go": "."},
    ),
    NpmPackage(
        "producers/javascript",
        {"OpenTelemetry SDK for JavaScript": "@opentelemetry/sdk-metrics"},
        {"producer.js": "producer.js"},
    ),
    RustCrate(
        "producers/rust",
        {"OpenTelemetry SDK for Rust": "opentelemetry_sdk"},
        {"producer-rust": "producer-rust"},
    ),
)
ON_DEMAND: dict[str, tuple[Source, ...]] = {
    # Two modules, because one would give each program the indirect dependencies of the other.
    "kubernetes-server": (
        GoModule(
            "kubernetes-server/apiserver",
            {"Kubernetes API server": "k8s.io/kubernetes"},
            {"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"},
        ),
        GoModule(
            "kubernetes-server/etcd",
            {"etcd": "go.etcd.io/etcd/server/v3"},
            {"etcd": "go.etcd.io/etcd/server/v3"},
        ),
    ),
}
"""Sources that only their own command builds, by its argument."""
_SOURCE_OF = {
    program: (source, build)
    for build, sources in {"": SOURCES, **ON_DEMAND}.items()
    for source in sources
    for program in source.programs
}


def need(program: Program) -> str:
    """Return the path of a program that was built.

    Skips the test if its tool is not installed or the program was not built. CI builds it, except on demand,
    so there the test fails.
    """
    source, build = _SOURCE_OF[program]
    if not source.toolchain:
        pytest.skip(f"{source.TOOL} is not installed: NOT tested")
    path = source.stored() / program
    if not path.exists() and build:
        pytest.skip(f"{program} is not built (python -m tests.ecosystem.builds {build}): NOT tested")
    if not path.exists():
        programs.lacking(f"{program} (python -m tests.ecosystem.builds)")
    return str(path)


def table() -> str:
    """Return a table of the programs and their versions for the documentation."""
    rows = [
        f"| {product} | {source.version(product)} | `{package}` |"
        for source in SOURCES
        for product, package in source.version_of.items()
    ]
    return "\n".join(["| program | version | package |", "|---|---|---|", *rows])


def summary() -> str:
    """Return the products and their releases as a sentence for the README."""
    releases = [
        f"{product} {_release(product, source.version(product))}"
        for source in SOURCES
        for product in source.version_of
        if "SDK" not in product
    ]
    listed = ", ".join(["PostgreSQL 15 and 18", *releases[:-1]]) + f" and {releases[-1]}"
    sentence = f"Each run of `.ci/run` tests with {listed}: [tested with](docs/tested-with.md)."
    return textwrap.fill(sentence, 130, break_long_words=False, break_on_hyphens=False)


def _release(product: str, version: str) -> str:
    """Return the number of a release; Prometheus' module v0.316.0 is its release 3.16.0."""
    if product == "Prometheus":
        version = re.sub(r"^v0\.(\d)(\d+)\.", r"\1.\2.", version)
    return version.removeprefix("v")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "obscura-poller-tests"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ecosystem.builds")
    parser.add_argument("build", nargs="?", choices=ON_DEMAND, help="build only these programs, on demand")
    build = parser.parse_args().build
    for source in ON_DEMAND[build] if build else SOURCES:
        if not source.toolchain:
            products = ", ".join(source.version_of)
            print(f"WARNING: {source.TOOL} is not installed, so NOT tested: {products}", file=sys.stderr)
        else:
            print(f"{source.name}: {source.build()}")


if __name__ == "__main__":
    main()
