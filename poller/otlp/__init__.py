"""Encode, queue, send and retry requests of OTLP.

export_log       Counts of exported and lost requests, and one log line when exporting fails and recovers.
exporter         Collect all metrics at every interval and hand them to the delivery over OTLP.
grpc             Send one request over gRPC and read what comes back.
http             Send one request over HTTP and read what comes back.
metric_reader    A reader of the SDK's instruments, and changes to what it has read.
preferences      The standard variables that choose temporality, histograms and exemplars of the poller's own
                 metrics.
queue_lock       Let one process work in a folder, and tell the second which one it is.
queue_storage    Keep encoded requests in one SQLite database, on disk or in memory.
request          Encode collected metrics, and split the OTLP requests of any signal into a size that
                 collectors accept.
response         Say what a collector's answer to one request means for the request.
retry_sender     Deliver what waits, oldest first, one request at a time, until the collector has it.
sender           The sender for an endpoint, built from the standard OTEL_EXPORTER_OTLP_* variables.
sending_queue    Keep what could not be delivered, and hand it out again in order.
signal_exporter  Delivery of the poller's own spans or log records: encoded, queued in memory and sent as
                 metrics are.
signals          How the signals of OTLP differ: gRPC method, messages, where the items are, and the words for
                 log lines.
"""
