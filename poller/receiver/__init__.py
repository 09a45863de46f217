"""An OTLP receiver, for the demo, the tests and `poller conform`.

__main__   OTLP receiver that prints one line of JSON when ready, and one for each accepted metrics request.
answers    Answers of an OTLP receiver, also as google.rpc.Status.
decode     Decoder of OTLP requests into data points, spans and log records, with unchanged values.
grpc       OTLP listener over gRPC.
http       OTLP listener over HTTP, for Protobuf and JSON.
listener   Common interface of the listeners: the function that takes a request, and TLS.
otlp_json  OTLP's JSON encoding, which differs from Protobuf's in the ids.
ports      Free TCP ports on 127.0.0.1 outside the range of outgoing connections.
receiver   OTLP receiver over gRPC and HTTP that keeps every request exactly as sent.
signals    The three signals of OTLP: paths, methods and message types.
"""
