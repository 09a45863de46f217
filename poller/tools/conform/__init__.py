"""Check the telemetry of a server against the metric catalogue.

conformance        Examine a stream of OTLP requests, and say at the end how it differs from the catalogue.
impossible_values  Values that no server can have measured.
inputs             Inputs of `conform`: a receiver that listens for a while, or a file of OTLP/JSON requests.
metrics            Hold data points against the metrics of the catalogue.
notes              Gather what differs, each difference once, with examples and how often it was met.
personal_data      Names and texts that identify a client or open an account, at every place of OTLP where
                   they may occur.
signals            What the spans and the log records of a server differ in: personal data, structure, trace
                   context.
span_structure     What section 4 of design document 005 asks of spans: a root with a request id, current
                   names.
"""
