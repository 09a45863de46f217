"""The whole thing with nothing installed: a PostgreSQL pair, an OTLP receiver, the real daemon between.

cluster    A PostgreSQL primary with a streaming standby on loopback, in a temporary folder.
messaging  A small messaging server that tells of everything it does, and the clients that keep it busy.
postgres   PostgreSQL's programs, and one server on 127.0.0.1 that is started and stopped by its process id.
processes  Processes of the demo, which end when the demo ends, even after SIGKILL.
run        The demo: start its processes, show what arrives, remove everything at the end.
screen     The screen of the demo: one line per series, and one per metric of the event catalogue.
workload   Live as the messaging server's users do: register, send, deliver, upload, and let things expire.
"""
