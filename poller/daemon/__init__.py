"""The running service: build, schedule, poll cycle, reload, health, shutdown.

build              The objects of one process, built from its settings and connected.
health             Judge a poller by the heartbeat it leaves in a file: does it live, and is it ready?
heartbeat          Heartbeat file that the poller writes every few seconds, for probes that have no port to
                   ask.
heartbeat_content  Gather what the heartbeat tells of a running daemon.
poll_cycle         Send every tick the one way through: ask the replica, keep what is good, count, announce.
reload             Read the query files anew and put them in the place of the running ones, or leave those as
                   they are.
run                Run the daemon: poll on schedule, push, reload when asked, stop in order.
scheduler          Poll on schedule until told to stop, and swap the schedule between two runs.
sd_notify          Tell systemd, or whatever else listens on NOTIFY_SOCKET, how the service gets on.
signals            Turn signals into a word to stop, an exit at once, or a call.
timer              Keep what runs when: every tick at its place, what comes in between, and one worker for all
                   of it.
watchdog           Look every few seconds whether the poller's loops go on, and tell whoever wants to know.
"""
