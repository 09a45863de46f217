"""The screen of `poller watch`.

board        Table of all queries, sized to the terminal, with scrolling.
show         Display of a poller's state: live on a terminal, once for any other output.
source       State of a poller as `watch` displays it, and its reader from the heartbeat file.
target_list  List of all targets, the most urgent first, with a selected one.
"""
