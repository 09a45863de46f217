"""The screen of `poller watch`.

board   Draw every query in a line or a few, as many as the screen has room for.
show    Show what is seen of a poller: live on a terminal, once to anything else.
source  Look at a running poller: at one beside us by its heartbeat, or at our own.
"""
