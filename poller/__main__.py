"""Run the command line as `python -m poller`."""

from poller.cli import main

main()
