"""Detection of names and texts that identify a client or hold a secret, for `poller conform`."""

from __future__ import annotations

import re

from poller.events._privacy.names import NAMES, OWN, PEER, personal_name
from poller.events._privacy.patterns import NAMED, SHAPES, cut_urls
from poller.events._privacy.texts import decodings, shorten

__all__ = ["NAMES", "OWN", "PEER", "personal_name", "personal_text"]

_PASSWORD = re.compile(r"://[^\s/?#:@\"']{0,256}+:[^\s/?#@\"']{1,1024}+@")
_QUERY = re.compile(r"\?[&\w.%~\[\]-]{1,1024}+=")


def personal_text(text: str, *, addresses: bool = True, named: bool = True) -> str | None:
    """Return the kind of personal data in a text, for example `an IP address`; None if there is none.

    The host of a URL is a server, not a client. `addresses=False` ignores IP addresses: see `OWN`.
    `named=False` ignores values after a name such as `token=`, because scrubbing removes more of them than
    necessary.
    """
    for decoded in decodings(shorten(text)):
        if _PASSWORD.search(decoded):
            return "a password"
        if _QUERY.search(decoded):
            return "a query string"
        rest = cut_urls(decoded)
        for shape, remove in SHAPES:
            if (shape == "an IP address" and not addresses) or (shape == NAMED and not named):
                continue
            if remove(rest) != rest:
                return shape
    return None
