"""A complete setup: PostgreSQL primary and standby, messaging server, daemon and OTLP receiver.

cluster    PostgreSQL primary with a streaming standby on loopback, in a temporary folder.
messaging  A small messaging server that exports events with `poller.events`, and clients that generate load.
postgres   PostgreSQL installation, and one server on 127.0.0.1 that is controlled by signals.
processes  Child processes of the demo, which end when the demo ends, even after SIGKILL.
run        Demo runner: starts all processes, draws the live screen, and removes everything at the end.
screen     Screen of the demo: one line per series, and one per metric of the event catalogue.
"""
