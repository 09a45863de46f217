"""Decorator `traced`: a span for each call of a service method, and one log record per error."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, overload

from opentelemetry.trace import (
    Span,
    StatusCode,
    Tracer,
    TracerProvider,
    get_tracer_provider,
    use_span,
)

from poller.events import request
from poller.events._asgi.errors import error_type, is_clients_fault, mark, record, sqlstate
from poller.events._privacy.attributes import is_denied
from poller.events.metrics import SCOPE
from poller.model.printable import text_of

P = ParamSpec("P")
R = TypeVar("R")
Capture = Sequence[str] | Mapping[str, str]

_LONGEST = 256
"""Maximum length of a captured argument, in characters."""


_within = functools.partial(use_span, record_exception=False, set_status_on_exception=False)
"""Make a span current while a block runs; `_Call.failed` records its exception."""


@functools.lru_cache(maxsize=1)
def _tracer(provider: TracerProvider) -> Tracer:
    """Return the tracer of the global provider, which a server may configure after its imports."""
    return provider.get_tracer(SCOPE)


@overload
def traced(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def traced(
    name: str | None = None, *, capture: Capture = (), expected: tuple[type[Exception], ...] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def traced(name: Any = None, *, capture: Capture = (), expected: tuple[type[Exception], ...] = ()) -> Any:
    """Create a span for each call of a function, coroutine function, generator or asynchronous generator.

    The span has the name `name`, by default that of the function: verb_noun (`send_message`). Only the
    arguments named in `capture` are recorded; a mapping renames their attributes (`capture={"device":
    "device.id"}`).

    An exception fails the span and is logged once, at ERROR, by the innermost traced method that it passes
    through. An exception that is `expected` or represents a 4xx response does not fail the span: the span has
    its `error.type`, and the log record has the level WARNING.

    Raises TypeError if `capture` names an unknown parameter, and ValueError if its attribute would identify a
    client.
    """
    if callable(name):
        return _decorated(name, _Call(name, None, capture, expected))
    return lambda function: _decorated(function, _Call(function, name, capture, expected))


class _Call:
    """Tracing settings of one function."""

    def __init__(
        self, function: Any, name: str | None, capture: Capture, expected: tuple[type[Exception], ...]
    ) -> None:
        if isinstance(function, classmethod | staticmethod):
            raise TypeError(f"put @traced below @{type(function).__name__}, next to the function")
        self.name = name or function.__name__
        self.logger = logging.getLogger(function.__module__)
        self._expected = expected
        self._code = {"code.function.name": f"{function.__module__}.{function.__qualname__}"}
        self._captured = list(_parameters(function, capture)) if capture else []

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Span:
        """Start the span of one call."""
        attributes: dict[str, Any] = dict(self._code)
        for parameter, position, default, attribute in self._captured:
            by_position = position is not None and position < len(args)
            value = args[position] if by_position and position is not None else kwargs.get(parameter, default)
            if value is not None:
                plain = isinstance(value, bool | int | float)
                attributes[attribute] = value if plain else text_of(value)[:_LONGEST]
        return _tracer(get_tracer_provider()).start_span(self.name, attributes=attributes)

    def failed(self, span: Span, error: BaseException) -> None:
        """Record an exception in the span of a call and log it once."""
        if not isinstance(error, Exception):
            return  # cancellation or process exit is not a failure
        state = sqlstate(error)
        span.set_attribute("error.type", error_type(error))
        if state:
            span.set_attribute("db.response.status_code", state)
        answer = isinstance(error, self._expected) or is_clients_fault(error)
        if not answer:
            span.set_status(StatusCode.ERROR)
        if not mark(error, span.get_span_context(), request.request_id()):
            return
        if not answer:
            record(span, error)
        extra = {"error.type": error_type(error)} | ({"db.response.status_code": state} if state else {})
        level = logging.WARNING if answer else logging.ERROR
        with _within(span):  # the record belongs to the span of this call, not to its caller's
            self.logger.log(level, "%s: %s", self.name, error, extra=extra)

    @contextmanager
    def span(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
        """Make the span of one call current while the block runs."""
        span = self.start(args, kwargs)
        try:
            with _within(span):
                yield
        except BaseException as error:
            self.failed(span, error)
            raise
        finally:
            span.end()


def _parameters(function: Any, capture: Capture) -> Iterator[tuple[str, int | None, Any, str]]:
    """Yield the name, position, default and attribute name of each captured parameter."""
    existing = inspect.signature(function).parameters
    names = capture if isinstance(capture, Mapping) else {name: name for name in capture}
    for parameter, attribute in names.items():
        if parameter not in existing:
            raise TypeError(
                f"{function.__qualname__} has no parameter {parameter!r}; "
                f"it has {', '.join(existing) or 'none'}"
            )
        if is_denied(attribute):
            raise ValueError(f"{attribute!r} identifies a client and is never exported; do not capture it")
        described = existing[parameter]
        by_position = described.kind in (described.POSITIONAL_ONLY, described.POSITIONAL_OR_KEYWORD)
        default = None if described.default is described.empty else described.default
        yield parameter, list(existing).index(parameter) if by_position else None, default, attribute


def _decorated(function: Any, call: _Call) -> Any:
    if inspect.isasyncgenfunction(function):
        return _asynchronous_generator(function, call)
    if inspect.isgeneratorfunction(function):
        return _generator(function, call)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with call.span(args, kwargs):
                return await function(*args, **kwargs)

        return coroutine

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with call.span(args, kwargs):
            return function(*args, **kwargs)

    return plain


# A generator's span lasts from its first item to its end, but is current only while the generator itself
# runs: it must not cover the work of the consumer between two items.


def _generator(function: Any, call: _Call) -> Any:
    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        span = call.start(args, kwargs)
        try:
            with _within(span):
                item = next(inner)
            while True:
                try:
                    value = yield item
                except GeneratorExit:
                    with _within(span):
                        inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - the generator must handle it
                    with _within(span):
                        item = inner.throw(error)
                else:
                    with _within(span):
                        item = inner.send(value)
        except StopIteration as end:
            return end.value
        except BaseException as error:
            call.failed(span, error)
            raise
        finally:
            span.end()

    return generator


def _asynchronous_generator(function: Any, call: _Call) -> Any:
    @functools.wraps(function)
    async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = function(*args, **kwargs)
        span = call.start(args, kwargs)
        try:
            with _within(span):
                item = await inner.__anext__()
            while True:
                try:
                    value = yield item
                except GeneratorExit:
                    with _within(span):
                        await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - the generator must handle it
                    with _within(span):
                        item = await inner.athrow(error)
                else:
                    with _within(span):
                        item = await inner.asend(value)
        except StopAsyncIteration:
            return
        except BaseException as error:
            call.failed(span, error)
            raise
        finally:
            span.end()

    return generator
