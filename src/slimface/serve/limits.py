"""Limits: how much a client may ask for, and the byte count that no request can get around."""

from typing import Any

from fastapi import HTTPException
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slimface.core.value import Value

_FORM_ROOM = 64 * 1024
"""Bytes of a form that are not pictures: names, boundaries, headers."""


class Limits(Value):
    """What a client may ask for, and how many may ask at once."""

    bytes: int = Field(default=20 * 2**20, gt=0)
    """Of one picture, as it is sent."""

    pixels: int = Field(default=25_000_000, gt=0)
    """Of one picture; known from its header before anything is decoded."""

    pictures: int = Field(default=16, gt=0)
    """In one request."""

    seconds: float = Field(default=30.0, gt=0)
    """Until a request is answered that its time is over."""

    waiting: int = Field(default=64, ge=0)
    """Requests that wait for a free worker; the next one is told to come back later."""

    @property
    def request_bytes(self) -> int:
        """Most bytes of a whole request."""
        return self.bytes * self.pictures + _FORM_ROOM


class BodyLimit:
    """ASGI middleware that counts the bytes of a request while they come in.

    A header may lie about the length or leave it out; what is counted here cannot.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body under watch."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        single = scope["path"].rstrip("/").endswith("/detect")
        most = self.limits.bytes if single else self.limits.request_bytes
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if max(seen, int(announced) if announced.isdigit() else 0) > most:
                raise too_large(f"the request has more than {most:,} bytes.")
            return message

        await self.app(scope, counted, send)


def too_large(what: str) -> HTTPException:
    """Return the answer to more than the limits allow."""
    return refusal(413, what, "Send less, or start the server with higher limits.")


def refusal(status: int, what: str, remedy: str, **headers: Any) -> HTTPException:
    """Return an answer that says what is wrong and what to do now."""
    return HTTPException(status, detail={"error": what, "remedy": remedy}, headers=headers or None)
