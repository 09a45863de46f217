"""Write complaints, and what the server said of each query, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from poller.lint.complaint import Complaint, failed
from poller.lint.judged import Judged


def to_json(complaints: Sequence[Complaint], judged: Sequence[Judged] = ()) -> str:
    """One object: `ok` as the exit code says it, a list `problems`, and one `queries` of those looked at."""
    told = {
        "ok": not failed(complaints),
        "problems": [_problem(complaint) for complaint in complaints],
        "queries": [
            {
                "query": one.query,
                "file": one.place.file,
                "line": one.place.line,
                "state": one.state,
                "cost": one.cost,
                "estimate_answers": one.estimate_answers,
                "columns": dict(one.columns),
            }
            for one in judged
        ],
    }
    return json.dumps(told, indent=2, ensure_ascii=False)


def _problem(complaint: Complaint) -> dict[str, Any]:
    place = complaint.place
    return {
        "rule": complaint.rule,
        "level": complaint.level,
        "query": complaint.query,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "path": place.path if place else complaint.where,
        "message": complaint.what,
    }
