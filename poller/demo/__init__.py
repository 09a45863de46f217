"""The whole thing with nothing installed: a PostgreSQL pair, an OTLP receiver, the real daemon between."""
