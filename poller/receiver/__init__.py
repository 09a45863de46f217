"""An OTLP receiver, for the demo, the tests and `poller conform`.

__main__   Receive OTLP and print one line of JSON when listening, and one for each accepted request with
           metrics.
answers    Answers of an OTLP receiver, also as google.rpc.Status.
decode     OTLP requests to data points, spans and log records, every value exactly as it was sent.
grpc       Listen for OTLP over gRPC.
http       Listen for OTLP over HTTP, in Protobuf and in JSON.
otlp_json  Read and write OTLP's JSON form, which is not quite Protobuf's.
ports      Find TCP ports of 127.0.0.1 that stay free while their server is down.
receiver   An OTLP receiver that keeps exactly what it was sent, by gRPC and by HTTP.
signals    The three signals of OTLP: paths, methods, message types, and how a listener hands over a request.
"""
