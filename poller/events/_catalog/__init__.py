"""Parts of the event catalogue.

declaration  Declarations of the catalogue: a metric with its instrument, unit, attributes and histogram
             boundaries.
events       Everything that can happen in a messaging server and is measured.
instruments  Make the instruments of declared metrics, and the attribute sets that they may be given.
names        What design document 005 calls the events, and what the server calls them at v0.9.4.
semconv      The HTTP server metrics of OpenTelemetry's semantic conventions (1.44, HTTP metrics, "HTTP
             server").
"""
