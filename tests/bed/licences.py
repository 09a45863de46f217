"""List the licences of what the image ships: python -m tests.bed.licences SITE_PACKAGES."""

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
    """One row per distribution in `folder`: what its metadata says, what libraries its wheel brought."""
    rows = ["| distribution | version | licence | libraries in the wheel |", "|---|---|---|---|"]
    found = {canonicalize_name(one.metadata["Name"]): one for one in distributions(path=[str(folder)])}
    for name in sorted(found):
        one = found[name]
        if name != "obscura-poller":
            rows.append(f"| {name} | {one.version} | {licence(one)} | {', '.join(libraries(one)) or '-'} |")
    return "\n".join(rows)


def licence(one: Distribution) -> str:
    """The SPDX expression, or else the classifiers, or else the free text; `unknown` where there is none."""
    metadata = one.metadata
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


def libraries(one: Distribution) -> list[str]:
    """Names of the shared libraries that auditwheel copied into the wheel, without their versions."""
    return sorted(
        {
            re.split(r"[-.]", file.name.removeprefix("lib"))[0]
            for file in one.files or []
            if file.parts[0].endswith(".libs")
        }
    )


if __name__ == "__main__":
    text = LICENCES.read_text(encoding="utf-8")
    before = text[: text.index(START) + len(START)]
    LICENCES.write_text(f"{before}\n{table(Path(sys.argv[1]))}\n", encoding="utf-8")
