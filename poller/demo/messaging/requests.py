"""Schemas and size limits of client requests."""

from __future__ import annotations

from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from poller.demo.messaging.refused import RefusedError

Body = TypeVar("Body", bound="Json")
Password = Annotated[str, Field(min_length=8, max_length=200)]


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


class OneMessage(Json):
    submission: UUID
    device: UUID
    content: Base64Bytes


class Outgoing(Json):
    messages: Annotated[list[OneMessage], Field(min_length=1, max_length=500)]


async def read(request: Request, into: type[Body]) -> Body:
    """Read a request's body. Raises RefusedError (400) where it is not as it should be."""
    try:
        return into.model_validate_json(await request.body())
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()
        )
        raise RefusedError(400, wrong) from None


async def read_content(request: Request, most: int, least: int = 1) -> bytes:
    """Read a body that is no JSON. Raises RefusedError: 411 without a length, 413 and 400 for a wrong one."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise RefusedError(411, "a length is needed")
    if int(length) > most:
        raise RefusedError(413, f"at most {most} bytes")
    if int(length) < least:
        raise RefusedError(400, f"at least {least} bytes")
    return await request.body()
