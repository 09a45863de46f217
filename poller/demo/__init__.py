"""The whole thing with nothing installed: a PostgreSQL pair, an OTLP receiver, the real daemon between.

cluster    PostgreSQL primary with a streaming standby on loopback, in a temporary folder.
messaging  A small messaging server that tells of everything it does, and the clients that keep it busy.
postgres   PostgreSQL installation, and one server on 127.0.0.1 that is started and stopped by process id.
processes  Child processes of the demo, which end when the demo ends, even after SIGKILL.
run        Demo runner: start of all processes, live display, and removal of everything at the end.
screen     Screen of the demo: one line per series, and one per metric of the event catalogue.
workload   Database workload of a messaging server: sign-ups, messages, deliveries, uploads and expiry.
"""
