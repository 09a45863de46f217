"""OTLP's JSON encoding, which differs from Protobuf's in the ids."""

from __future__ import annotations

import base64
import json
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import Message

Parsed = TypeVar("Parsed", bound=Message)

_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}


def from_json(text: str | bytes, into: type[Parsed]) -> Parsed:
    """Parse one request; unknown keys are ignored, as the specification requires.

    Ids of traces and spans are hexadecimal in OTLP, but Base64 in Protobuf's own JSON form (OTLP
    specification 1.10, "JSON Protobuf Encoding"). Raises ValueError if the text is not a valid request.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("it is not an object")  # noqa: TRY004 - the value is invalid, not its Python type
        return ParseDict(_with_base64_ids(data), into(), ignore_unknown_fields=True)
    except (ParseError, RecursionError) as error:
        raise ValueError(str(error)) from None


def to_json(message: Message) -> bytes:
    """Encode an answer, which contains no ids."""
    return MessageToJson(message, indent=None).encode()


def _with_base64_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(item)).decode()
        if key in _IDS and isinstance(item, str)
        else _with_base64_ids(item)
        for key, item in value.items()
    }
