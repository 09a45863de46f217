"""Parts of the ASGI middleware.

errors    Telemetry facts about an exception: type, SQLSTATE, client or server error, and originating span.
exchange  Base class of a client's exchange with an ASGI application: root span, route and request id.
lifespan  Functions to run at the end of an ASGI application's lifespan.
routes    Route templates from the scopes of ASGI frameworks; the path itself is never used.
"""
