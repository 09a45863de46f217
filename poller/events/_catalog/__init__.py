"""Parts of the event catalogue.

declaration  Declarations of the catalogue: events, metrics, attributes and histogram boundaries.
events       Measured events of a messaging server.
instruments  OpenTelemetry instruments of the declared metrics, and their permitted attribute sets.
names        Metric names of the events, in design document 005 and in the server's v0.9.4.
semconv      HTTP server metrics of OpenTelemetry's semantic conventions (1.44, HTTP metrics, "HTTP server").
"""
