"""Histogram boundaries fit for what is measured: seconds, bytes, batches."""

from __future__ import annotations

REQUEST = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120)
"""Seconds; those of `http.server.request.duration` (semantic conventions 1.44), to the longest timeout."""

SESSION = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 604_800)
"""Seconds, a second to a week: a session that ends at once, one that a proxy cuts, one that stays."""

CLEANUP = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30)
"""Seconds of a pass over what is in memory."""

BYTES = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 268_435_456)
"""Bytes, 1 KiB to 256 MiB, each four times the one before."""

BATCH = (0, 1, 2, 5, 10, 20, 49, 50, 99, 100, 200, 500)
"""Items. Unless told otherwise the server fetches 50 and flushes 100 at most: full batches stand apart."""
