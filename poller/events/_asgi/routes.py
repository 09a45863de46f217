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
"""Behind the prefix of what is mounted and has no routes of its own, static files say."""
_PARTIAL, _FULL = 1, 2
"""Of Starlette's `Match`; partial is another method of the same path."""
_SOMEWHERE = "/{mount}"
"""In place of a prefix that cannot be found out."""


def route_of(scope: Scope) -> str:
    """The template of the route in a scope that an application has handled, or `unmatched`."""
    if handler := scope.get("route_handler"):  # Litestar
        return scope.get("path_template") or _mounted_path(handler) or UNMATCHED
    leaf = _leaf(scope)
    if "app_root_path" in scope:  # Starlette, FastAPI: inside of a Mount
        prefix, found = _walk(scope)
        if leaf is not None:
            return (_SOMEWHERE if prefix is None else prefix) + leaf
        return found or UNMATCHED
    if leaf is None and "endpoint" in scope and "router" in scope:  # older Starlette; FastAPI's own pages
        return _walk(scope)[1] or UNMATCHED
    return leaf or UNMATCHED


def _leaf(scope: Scope) -> str | None:
    """The template of the innermost route."""
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
    """Litestar tells no template for what is mounted; its handler has one path, or nobody knows which."""
    paths = getattr(handler, "paths", ())
    return next(iter(paths)).rstrip("/") + _REST if len(paths) == 1 else None


def _walk(scope: Scope) -> tuple[str | None, str | None]:
    """Follow a request from the outermost router: the templates of its mounts in one, and of its whole path.

    None in place of the first where the way does not lead to where the request is, of the second where the
    innermost router has no route for it.
    """
    at: Scope = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
    for left_by_the_request in ("app_root_path", "fastapi", "path_params", "route"):
        at.pop(left_by_the_request, None)
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
    """The route that Starlette would take, and the scope changed as it would change it."""
    partly = None
    for route in routes:
        with contextlib.suppress(Exception):  # of a route that somebody else made
            match, child = route.matches(scope)
            if match.value == _FULL:
                scope.update(child)
                return route
            if match.value == _PARTIAL and partly is None:
                partly = route
    return partly
