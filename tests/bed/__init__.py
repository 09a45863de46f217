"""Fixtures and helpers of the tests: PostgreSQL servers, an OTLP receiver, the real command, a TCP proxy."""
