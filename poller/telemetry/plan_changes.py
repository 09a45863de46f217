"""Log and count of changed plans, of queries whose cost is compared with a limit."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from poller.model.result import PlanShape, PollResult
from poller.telemetry.poll_log import DELAYS_LOGGED_EVERY

logger = logging.getLogger(__name__)

_MOST_NODES = 5
"""Nodes of one plan in a log record."""


class PlanChanges:
    """The last plan of each query of one target; a query whose plan alternates is logged less often."""

    def __init__(self, count: Callable[[str], None] = lambda _: None) -> None:
        """`count` is called with the name of each query whose plan has changed."""
        self._count = count
        self._plans: dict[str, PlanShape] = {}
        self._logged: dict[str, float] = {}

    def observe(self, results: Sequence[PollResult], now: float | None = None) -> None:
        """Compare the plans of one tick with the plans before; `now` is in monotonic seconds."""
        now = time.monotonic() if now is None else now
        for result in results:
            name, plan = result.query.name, result.plan
            if plan is None:
                continue
            before = self._plans.get(name)
            self._plans[name] = plan
            if before is None or before.digest == plan.digest:
                continue
            self._count(name)
            last = self._logged.get(name)
            if last is None or now - last >= DELAYS_LOGGED_EVERY:
                self._logged[name] = now
                logger.info(
                    "query %s has another plan: %s", name, _change(before, plan), extra={"query": name}
                )

    def reset(self, names: Collection[str]) -> None:
        """Forget these queries, which were removed or changed."""
        for name in names:
            self._plans.pop(name, None)
            self._logged.pop(name, None)


def _change(before: PlanShape, after: PlanShape) -> str:
    """Return the nodes that only one of the plans has."""
    old, new = Counter(before.nodes), Counter(after.nodes)
    added, removed = (_listed(list((a - b).elements())) for a, b in ((new, old), (old, new)))
    if not added and not removed:
        return "the same nodes in another order"
    return f"{added or 'nothing'} instead of {removed or 'nothing'}"


def _listed(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - _MOST_NODES} more" if len(nodes) > _MOST_NODES else ""
    return ", ".join(nodes[:_MOST_NODES]) + more
