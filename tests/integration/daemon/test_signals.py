"""A signal to stop is handled at every moment."""

from __future__ import annotations

import subprocess
import sys

from tests.bed.process import ROOT

AT_EVERY_LINE = """
import signal, sys
from poller.daemon.signals import StopSignal

class Wait:
    # Waits, with a signal in front of one line of all the Python that the waiting runs.

    def __init__(self, line):
        self.line, self.seen, self.stop = line, 0, StopSignal()
        signal.signal(signal.SIGALRM, self.enough)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        sys.settrace(self.look)
        self.stop.wait()
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def look(self, frame, event, argument):
        if event == "line" and frame.f_code is not Wait.enough.__code__:
            self.seen += 1
            if self.seen == self.line:
                signal.raise_signal(signal.SIGTERM)
        return self.look

    def enough(self, number, frame):
        if self.stop.number is None:
            self.seen = -1000  # there is no such line
            signal.raise_signal(signal.SIGTERM)

line = 1
while Wait(line).seen > 0:
    line += 1
print("handled before each of", line - 1, "lines")
"""
AT_ANY_MOMENT = """
import os, random, signal, sys, threading
from poller.daemon.signals import StopSignal

def spin():
    while True:
        pass

def send(moments):
    for _ in range(moments):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

# Threads that want to run make the way into the sleep longer.
sys.setswitchinterval(1e-6)
for _ in range(2):
    threading.Thread(target=spin, daemon=True).start()
for _ in range(2000):
    stop = StopSignal()
    threading.Thread(target=send, args=[random.randrange(200)]).start()
    stop.wait()
print("handled every time", flush=True)
os._exit(0)
"""


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_signal_before_any_line_of_the_wait_is_handled() -> None:
    """If the wait used a lock of Python, the handler could deadlock on some of the lines."""
    assert run(AT_EVERY_LINE).startswith("handled before each of")


def test_a_signal_between_the_last_check_and_the_sleep_is_handled() -> None:
    """Python runs handlers only between two instructions, and cannot interrupt a sleep that begins in C."""
    assert run(AT_ANY_MOMENT) == "handled every time\n"
