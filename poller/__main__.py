"""Run the command line as `python -m poller`."""

from poller.main import main

main()
