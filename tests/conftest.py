"""Clear the environment first, then lay the bed: everything else is in tests/bed."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

_OURS = ("PG", "OTEL_", "POLLER_", "OBSCURA_")
_READ_BY_LIBRARIES = {
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"),
    # requests takes these before the authority that an exporter was given.
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
}

# Before any import: libpq, the OpenTelemetry SDK and gRPC read some of these when they are loaded, and a
# proxy would stand between a test and its receiver.
for _name in list(os.environ):
    if _name.startswith(_OURS) or _name in _READ_BY_LIBRARIES or _name.lower().endswith("_proxy"):
        del os.environ[_name]

# A server is started as another account, which takes a real fork; gRPC would wake its threads in the child,
# and end it before it is the server (gRPC 1.85). Processes that the tests start decide for themselves.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Workers beside each other take their ports from different quarters: a server that is down for a moment would
# else lose its port to a test in another worker.
if _worker := os.environ.get("PYTEST_XDIST_WORKER"):
    from poller.receiver import ports

    _share = len(ports._RANGE) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])  # noqa: SLF001
    _first = ports._RANGE.start + int(_worker.removeprefix("gw")) * _share  # noqa: SLF001
    ports._RANGE = range(_first, _first + _share)  # noqa: SLF001

# A machine that is busy is no reason to fail.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

pytest_plugins = [
    "tests.bed.versions",
    "tests.bed.golden",
    "tests.bed.postgres",
    "tests.bed.messaging",
    "tests.bed.otlp",
    "tests.bed.process",
    "tests.bed.proxy",
    "tests.bed.role",
    "tests.bed.served",
    "tests.bed.pgbouncer",
    "tests.bed.pushes",
    "tests.bed.s3",
]


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> Iterator[None]:
    """Discard the secrets that a test made known: they would be masked in the output of all later tests."""
    from poller.model import redaction

    yield
    redaction._memory = redaction._Memory()  # noqa: SLF001


_MARKS = {
    "postgres": {"pg_bin", "site", "Cluster"},
    "process": {"subprocess", "multiprocessing", "start_process", "s3_endpoint", "LoaderProcess"},
}
"""For each mark the fixtures, modules and classes by which a test needs it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by what it needs, so that `-m "not postgres and not process"` selects the others."""
    used: dict[object, set[str]] = {}
    for item in items:
        if isinstance(item, pytest.Function):
            names = set(item.fixturenames) | _names_of(item.function, used)
            for fixture in item.fixturenames:
                names |= _names_of(getattr(item.module, fixture, None), used)
            for mark, needed in _MARKS.items():
                if names & needed:
                    item.add_marker(mark)


def _names_of(thing: object, used: dict[object, set[str]]) -> set[str]:
    """Return all names that a function, a class or a fixture of the tests uses, directly or indirectly."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if not str(getattr(thing, "__module__", None)).startswith("tests."):
        return set()
    if thing not in used:
        used[thing] = set()
        functions = vars(thing).values() if isinstance(thing, type) else [thing]
        for function in map(inspect.unwrap, filter(callable, functions)):
            codes = [function.__code__] if hasattr(function, "__code__") else []
            for code in codes:
                codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
                used[thing] |= set(code.co_names)
            for name in tuple(used[thing]):
                used[thing] |= _names_of(getattr(function, "__globals__", {}).get(name), used)
    return used[thing]
