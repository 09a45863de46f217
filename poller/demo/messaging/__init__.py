"""A small messaging server that tells of everything it does, and the clients that keep it busy.

__main__       Serve the messaging server until SIGTERM; prints one line of JSON with its URL when it does.
accounts       Sign users up, let them in and out, and know who is who.
application    Put the messaging server together: services, routes, workers, health, telemetry around it all.
attachments    Keep what is too large for a message, for a while.
backups        Keep the newest backup of each device.
bus            Publish and subscribe by the database's own NOTIFY and LISTEN.
client         One user with one device, who speaks to the messaging server by HTTP and WebSocket.
clients        Simulated users who keep a messaging server busy.
database       The pool of connections, and the rows' type.
devices        Set devices up, and hand out the keys with which others write to them.
gateway        Deliver messages to connected devices by WebSocket, and take their acknowledgements.
limits         Let each client do only so much in a second.
messages       Keep messages until the devices that they are for have them.
notifications  Tell devices what waits for them: at once where they are connected, by push where they are not.
objects        Keep bytes under names: in S3, or in a folder.
push           Wake devices up that are not connected, by a provider who knows their tokens.
refused        What the server answers to a request that it will not serve.
requests       What clients send, and what makes it acceptable.
routes         Map HTTP requests to the services, and their results to answers.
settings       The limits, sizes and times of the messaging server.
workers        Do at an interval what no request asks for.
"""
