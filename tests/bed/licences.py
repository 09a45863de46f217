"""Licences of the distributions in the image: python -m tests.bed.licences SITE_PACKAGES."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.bed.process import ROOT

LICENCES = ROOT / "deploy" / "image" / "LICENSES.md"
START = "<!-- generated: licences -->"
_CLASSIFIER = "License :: OSI Approved :: "
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
}


def table(folder: Path) -> str:
    """Return one row per distribution in `folder`: its licence, and the libraries that its wheel contains."""
    rows = ["| distribution | version | licence | libraries in the wheel |", "|---|---|---|---|"]
    by_name = {canonicalize_name(item.metadata["Name"]): item for item in distributions(path=[str(folder)])}
    for name in sorted(by_name):
        item = by_name[name]
        if name != "obscura-poller":
            rows.append(
                f"| {name} | {item.version} | {licence(item)} | {', '.join(libraries(item)) or '-'} |"
            )
    return "\n".join(rows)


def licence(distribution: Distribution) -> str:
    """Return the SPDX expression, the classifiers, the free text, or `unknown`."""
    metadata = distribution.metadata
    if expression := metadata.get_all("License-Expression"):
        return str(expression[0])
    classifiers = [
        text.removeprefix(_CLASSIFIER)
        for text in metadata.get_all("Classifier") or []
        if text.startswith(_CLASSIFIER)
    ]
    if classifiers:
        return " AND ".join(_SPDX.get(text, text) for text in classifiers)
    free = str((metadata.get_all("License") or ["unknown"])[0]).strip().splitlines()[0]
    return _SPDX.get(free, free)


def libraries(distribution: Distribution) -> list[str]:
    """Return the names of the shared libraries that auditwheel copied into the wheel, without versions."""
    return sorted(
        {
            re.split(r"[-.]", file.name.removeprefix("lib"))[0]
            for file in distribution.files or []
            if file.parts[0].endswith(".libs")
        }
    )


if __name__ == "__main__":
    text = LICENCES.read_text(encoding="utf-8")
    before = text[: text.index(START) + len(START)]
    LICENCES.write_text(f"{before}\n{table(Path(sys.argv[1]))}\n", encoding="utf-8")
