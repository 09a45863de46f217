"""Cleanup of everything that a test creates through one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


@contextmanager
def closing_all(create: Callable[_P, _T], close: Callable[[_T], object]) -> Iterator[Callable[_P, _T]]:
    """Yield `create`; at the end, call `close` with each object that it has returned, newest first."""
    with ExitStack() as stack:

        def make(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            made = create(*args, **kwargs)
            stack.callback(close, made)
            return made

        yield make
