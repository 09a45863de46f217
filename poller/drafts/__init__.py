"""Draft query files."""
