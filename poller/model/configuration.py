"""Configuration that can be loaded again while the poller runs: the catalogue and the targets."""

from __future__ import annotations

from dataclasses import dataclass

from poller.model.catalog import Catalog
from poller.model.target import Target


@dataclass(frozen=True, slots=True)
class Configuration:
    """The queries and the targets, each validated alone and together."""

    catalog: Catalog
    targets: tuple[Target, ...]
