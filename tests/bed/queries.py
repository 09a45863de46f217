"""A writer of small query files."""

from __future__ import annotations

import json
from pathlib import Path


def write_queries(
    folder: Path,
    *queries: tuple[str, str],
    interval: str = "1s",
    timeout: str = "1s",
    groups: dict[str, str] | None = None,
) -> str:
    """Write a file of (name, sql) that each feed a gauge `<name>_count` from a column n; return its path."""
    entries = [
        {
            "name": name,
            "sql": sql,
            "interval": interval,
            "timeout": timeout,
            "group": (groups or {}).get(name, "default"),
            "metrics": [{"name": f"{name}_count", "unit": "{row}", "description": name, "value_column": "n"}],
        }
        for name, sql in queries
    ]
    file = folder / "queries.yaml"
    file.write_text(json.dumps({"queries": entries}))  # JSON is YAML
    return str(file)
