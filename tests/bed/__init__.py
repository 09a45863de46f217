"""What the tests stand on: PostgreSQL servers, an OTLP receiver, the real command, a TCP proxy."""
