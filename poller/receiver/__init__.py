"""An OTLP receiver, for the demo, the tests and `poller conform`."""
