"""Engines behind one interface: the same chat from any of them."""
