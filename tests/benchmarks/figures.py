"""CPU, memory and threads of a process, read from the kernel."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_SCHEDULED = 2
"""CPUCLOCK_SCHED of Linux' clock_getcpuclockid(3): CPU time of all threads of a process, in nanoseconds."""


@dataclass(frozen=True)
class Memory:
    """Memory of a process in MB of a million bytes."""

    rss: float
    pss: float
    """Each page counts by the share of the processes that map it, including the benchmark."""
    own: float
    """Anonymous memory."""


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process, including its ended threads, without its children."""
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def cpu_of_tree(pid: int) -> float:
    """Return the same including its direct children and all ended descendants."""
    living = sum(_quietly(child) for child in children(pid))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return cpu(pid) + living + ended


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(pid: int) -> Memory:
    words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    return Memory(
        *(int(words[words.index(name) + 1]) * 1024 / 1e6 for name in ("Rss:", "Pss:", "Anonymous:"))
    )


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _quietly(pid: int) -> float:
    try:
        return cpu(pid)
    except OSError:  # it has ended meanwhile
        return 0.0
