"""The same chat from any engine."""
