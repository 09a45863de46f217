"""The one complete catalogue, gauges of the state and events, and the forms in which it is told."""
