"""Hatch hook for the metadata of a release: the addresses of the project, and absolute links in the README.

REPOSITORY_URL is the address of the repository, such as `https://github.com/OWNER/NAME`. The release workflow
sets it. Without it, the README is unchanged and the metadata has no addresses.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?![A-Za-z][A-Za-z0-9+.-]*:|#)([^)\s]+)\)")


class ReleaseMetadata(MetadataHookInterface):
    """Absolute links lead to the tag of the version, so they stay correct on the page of an old release."""

    def update(self, metadata: dict[str, Any]) -> None:
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = os.environ.get("REPOSITORY_URL", "").rstrip("/")
        if repository:
            tag = f"v{metadata['version']}"
            metadata["urls"] = {
                "Repository": repository,
                "Documentation": f"{repository}/blob/{tag}/docs/index.md",
                "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
            }
            folders = {"": "blob", "!": "raw"}  # a page, and a picture
            readme = _LINK.sub(
                lambda link: f"{link[1]}{link[2]}({repository}/{folders[link[1]]}/{tag}/{link[3]})", readme
            )
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
