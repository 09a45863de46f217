"""Route templates from the scopes of ASGI frameworks; the path itself is never used.

Each framework stores the matched route in the scope in its own way. A mounted application sees only its own
part of the route, so this module joins the parts. A client can only choose among the templates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, MutableMapping
from typing import Any

from poller.events.attributes import UNMATCHED

Scope = MutableMapping[str, Any]

_REST = "/{path}"
"""Replaces the rest of the path after a mount without routes of its own, for example static files."""
_PARTIAL, _FULL = 1, 2
"""Values of Starlette's `Match`; partial means that only the method differs."""
_SOMEWHERE = "/{mount}"
"""Replaces an unknown mount prefix."""


def route_of(scope: Scope) -> str:
    """Return the template of the route in a scope that an application has handled, or `unmatched`."""
    if handler := scope.get("route_handler"):  # Litestar
        return scope.get("path_template") or _mounted_path(handler) or UNMATCHED
    leaf = _leaf(scope)
    if "app_root_path" in scope:  # Starlette, FastAPI: inside of a Mount
        prefix, template = _walk(scope)
        if leaf is not None:
            return (_SOMEWHERE if prefix is None else prefix) + leaf
        return template or UNMATCHED
    if leaf is None and "endpoint" in scope and "router" in scope:  # older Starlette; FastAPI's own pages
        return _walk(scope)[1] or UNMATCHED
    return leaf or UNMATCHED


def _leaf(scope: Scope) -> str | None:
    """Return the template of the innermost route."""
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    for route in (included, scope.get("route")):
        template = _template(route)
        if template is not None and not hasattr(route, "routes"):
            return template
    return None


def _template(route: object) -> str | None:
    for name in ("path_format", "path"):
        if isinstance(template := getattr(route, name, None), str):
            return template or "/"
    return None


def _mounted_path(handler: object) -> str | None:
    """Return the path of a Litestar mount, which has no template; None unless its handler has one path."""
    paths = getattr(handler, "paths", ())
    return next(iter(paths)).rstrip("/") + _REST if len(paths) == 1 else None


def _walk(scope: Scope) -> tuple[str | None, str | None]:
    """Follow a request from the outermost router; return the mount prefix and the template of the whole path.

    The prefix is None if the route does not lead to the current mount. The template is None if the innermost
    router has no matching route.
    """
    at: Scope = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
    for key in ("app_root_path", "fastapi", "path_params", "route"):
        at.pop(key, None)
    routes, prefix = getattr(scope.get("router"), "routes", ()), ""
    while (route := _match(routes, at)) is not None:
        template = _template(route) or ""
        if not hasattr(route, "routes"):
            return prefix, prefix + template
        prefix += template.removesuffix(_REST)
        if not route.routes:
            return prefix, prefix + _REST
        routes = route.routes
    return prefix if at["root_path"] == scope.get("root_path", "") else None, None


def _match(routes: Iterable[Any], scope: Scope) -> Any:
    """Return the route that Starlette would choose, and update the scope as Starlette would."""
    partly = None
    for route in routes:
        with contextlib.suppress(Exception):  # `matches` of a custom route may raise
            match, child = route.matches(scope)
            if match.value == _FULL:
                scope.update(child)
                return route
            if match.value == _PARTIAL and partly is None:
                partly = route
    return partly
