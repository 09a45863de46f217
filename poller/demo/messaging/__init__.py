"""A small messaging server that exports events with `poller.events`, and clients that generate load.

__main__       Messaging server as a process: prints its URL as one line of JSON, and runs until SIGTERM.
accounts       Accounts, sign-up, login, logout, and authentication by access token.
application    ASGI application of the messaging server: services, routes, workers, health checks, telemetry.
attachments    Attachments: files too large for a message, deleted after their lifetime.
backups        Backups: the newest one of each device.
bus            Publish/subscribe bus on PostgreSQL's NOTIFY and LISTEN.
client         HTTP and WebSocket client of the messaging server, for one user with one device.
clients        Simulated users that generate load on a messaging server.
database       Connection pool of the messaging server.
devices        Devices of users, and the public keys that other clients fetch to encrypt messages.
gateway        WebSocket gateway: message delivery to connected devices, and their acknowledgements.
limits         Rate limit per client and tier, as ASGI middleware with token buckets.
messages       Message store: each message is stored until its device has received it.
notifications  Notifications to devices: at once over an open session, otherwise by push.
objects        Object store for attachments and backups, in S3 or in a folder.
push           Push notifications to disconnected devices, sent through an external provider.
requests       Schemas and size limits of client requests, and the error for a rejected request.
routes         HTTP routes of the messaging server below `/v1`, and their error responses.
settings       Limits, sizes and times of the messaging server.
workers        Periodic background tasks of the messaging server.
"""
