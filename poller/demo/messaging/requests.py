"""Schemas and size limits of client requests, and the error for a rejected request."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

Body = TypeVar("Body", bound="Json")
Password = Annotated[str, Field(min_length=8, max_length=200)]


class RequestError(Exception):
    """Becomes a response with a 4xx status; because of `status_code`, `poller.events` counts no failure."""

    def __init__(
        self, status_code: int, message: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.headers = headers


class Json(BaseModel):
    """A JSON object with known keys."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class SignUp(Json):
    username: Annotated[str, Field(pattern=r"^[a-z0-9_]{3,50}$")]
    password: Password


class Login(Json):
    username: str
    password: str
    device: UUID | None = None


class Refresh(Json):
    refresh: str


class PreKey(Json):
    id: int
    key: Base64Bytes


class KeyUpload(Json):
    identity: Base64Bytes
    pre_keys: Annotated[list[PreKey], Field(max_length=200)] = []


class NewDevice(Json):
    name: Annotated[str, Field(max_length=100)]
    keys: KeyUpload


class PushToken(Json):
    token: Annotated[str, Field(min_length=1, max_length=4096)]


class NewMessage(Json):
    submission: UUID
    device: UUID
    content: Base64Bytes


class NewMessages(Json):
    messages: Annotated[list[NewMessage], Field(min_length=1, max_length=500)]


async def read(request: Request, into: type[Body]) -> Body:
    """Read the body of a request. Raises RequestError (400) if it does not match the schema `into`."""
    try:
        return into.model_validate_json(await request.body())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the body'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise RequestError(400, problems) from None


async def read_content(request: Request, most: int, least: int = 1) -> bytes:
    """Read a binary body. Raises RequestError: 411 without a length, 413 or 400 for a wrong length."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise RequestError(411, "send a Content-Length header")
    if int(length) > most:
        raise RequestError(413, f"the body is too large; send at most {most} bytes")
    if int(length) < least:
        raise RequestError(400, f"the body is too small; send at least {least} bytes")
    return await request.body()
