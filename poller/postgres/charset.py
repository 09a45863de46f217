"""Database encodings, and the Python codecs that decode them."""

from __future__ import annotations

from typing import NamedTuple

_REPLACEMENT = "\ufffd".encode()
_NEVER_UTF8 = b"\xff"


class Charset(NamedTuple):
    """Encoding of the texts of one connection, in both directions."""

    encoding: str
    """PostgreSQL's name, for `client_encoding`."""
    codec: str
    """Python's name."""

    @property
    def converts(self) -> bool:
        """Whether values arrive in another encoding than UTF-8."""
        return self.codec != _UTF8

    def has(self, text: str) -> bool:
        """Return whether the charset can encode `text`."""
        try:
            text.encode(self.codec)
        except UnicodeEncodeError:
            return False
        return True

    def to_utf8(self, raw: bytes) -> bytes:
        """Return `raw` in UTF-8; bytes that are not a character become 0xFF, which is never valid UTF-8."""
        if not self.converts or raw.isascii():
            return raw
        return raw.decode(self.codec, "replace").encode().replace(_REPLACEMENT, _NEVER_UTF8)


_UTF8 = "utf-8"
UTF8 = Charset("UTF8", _UTF8)
_CODECS = {
    "SQL_ASCII": _UTF8,  # no encoding at all: each value is checked for valid UTF-8
    "EUC_CN": "gb2312",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    **{f"ISO_8859_{part}": f"iso8859-{part}" for part in range(5, 9)},
    **{f"LATIN{number}": f"latin{number}" for number in range(1, 11)},
    **{f"WIN{page}": f"cp{page}" for page in (866, 874, *range(1250, 1259))},
}
"""Encodings in which Python and PostgreSQL give every byte the same meaning.

EUC_JP, EUC_JIS_2004 and EUC_KR are missing: Python lacks some of their characters and decodes a few
differently. Python does not support EUC_TW and MULE_INTERNAL.
"""


def charset_of(server_encoding: bytes | None) -> Charset:
    """Return the charset for the connection to a database with this encoding (None: unknown).

    If the server cannot convert one value to UTF-8, the whole query fails. So if Python decodes the encoding
    exactly as the server does, the server sends the values unconverted.
    """
    encoding = (server_encoding or b"").decode(errors="replace")
    return Charset(encoding, _CODECS[encoding]) if encoding in _CODECS else UTF8
