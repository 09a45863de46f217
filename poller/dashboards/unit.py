"""Find the unit of Grafana that shows a UCUM unit the way people read it."""

from __future__ import annotations

import re

# Identifiers of Grafana's value formats (grafana-data, valueFormats/categories.ts).
_IDS = {
    "": "short", "1": "none", "%": "percent",
    "By": "bytes", "kBy": "deckbytes", "MBy": "decmbytes", "GBy": "decgbytes", "TBy": "dectbytes",
    "PBy": "decpbytes", "KiBy": "kbytes", "MiBy": "mbytes", "GiBy": "gbytes", "TiBy": "tbytes",
    "PiBy": "pbytes", "bit": "decbits",
    "ns": "ns", "us": "µs", "ms": "ms", "s": "s", "min": "m", "h": "h", "d": "d",
    "Hz": "hertz", "Cel": "celsius", "K": "kelvin", "deg": "degree",
    "mm": "lengthmm", "m": "lengthm", "km": "lengthkm", "mg": "massmg", "g": "massg", "kg": "masskg",
    "mL": "mlitre", "L": "litre", "Pa": "pressurepa", "kPa": "pressurekpa", "N": "forceN",
    "J": "joule", "mW": "mwatt", "W": "watt", "kW": "kwatt", "MW": "megwatt", "GW": "gwatt",
    "mV": "mvolt", "V": "volt", "kV": "kvolt", "mA": "mamp", "A": "amp", "kA": "kamp", "Ohm": "ohm",
    "By/s": "Bps", "kBy/s": "KBs", "MBy/s": "MBs", "GBy/s": "GBs", "bit/s": "bps",
    "/s": "cps", "/min": "cpm", "m/s": "velocityms", "km/h": "velocitykmh",
}  # fmt: skip


def unit_id(unit: str) -> str:
    """Grafana's identifier for a unit of a query file.

    A count of things, `{message}`, becomes a plain number that is shortened where it is long; what Grafana
    does not know is written behind the number.
    """
    bare = re.sub(r"\{[^}]*\}", "", unit)
    return _IDS.get(bare) or f"suffix: {bare}"
