"""Streams, exit codes and live screens.

console    The console that every table and every coloured line is printed with.
exit       Run to the end, and make an exit code and a few words of what ended it.
live       A screen that is redrawn until a key is pressed.
progress   Say on a terminal which queries are still running, and for how long; say nothing anywhere else.
sparkline  Keep the values of a series for a while, and draw them in a line of text.
stdio      Have all three standard streams, whatever the caller left closed, and know when stdout takes no
           more.
"""
