"""Parts of the ASGI middleware.

errors    Say of an exception what telemetry needs to know: its type, its SQLSTATE, whose fault it is, and
          where.
exchange  Follow what happens between a client and an ASGI application: its root span, its route, its request
          id.
lifespan  Functions to run at the end of an ASGI application's lifespan.
routes    Find the template of the route that an ASGI framework has matched; never the path itself.
"""
