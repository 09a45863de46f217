"""Encode, queue, send and retry requests of OTLP.

export_log       Counts of exported and lost requests, and log records when exporting fails and recovers.
exporter         Periodic exporter of all metrics: collection, encoding and hand-over to the delivery.
grpc             gRPC sender for one OTLP request.
http             HTTP sender for one OTLP request.
http_transport   HTTP transport of `requests` with connections that another thread can close.
metric_reader    Metric reader of the SDK's instruments.
preferences      Standard variables for temporality, histograms and exemplars of the poller's own metrics.
queue_database   Tables of the queue's SQLite database, its reads, and its checksums.
queue_folder     Folder of the queue: its lock, and its database, replaced if it is damaged or removed.
queue_lock       Lock on the state folder, so that only one process uses it.
queue_recovery   Recovery of the requests of a damaged database that cannot be opened.
queue_storage    SQLite storage of encoded requests, on disk or in memory.
request          OTLP requests: encoding of collected metrics, and splitting to a size that collectors accept.
response         Classification of a collector's response: accepted, retryable or rejected.
retry_sender     Retry-aware delivery of OTLP requests, oldest first, one at a time.
sender           Sender for an endpoint, configured by the standard OTEL_EXPORTER_OTLP_* variables.
sending_queue    Queue of undelivered OTLP requests, oldest first, bounded by size and age.
signal_exporter  Exporter of the poller's own spans or log records, with a queue in memory.
signals          Differences between OTLP's signals: gRPC method, messages, item fields and log wording.
"""
