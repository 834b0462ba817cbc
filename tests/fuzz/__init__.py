"""Hostile inputs against everything that reads a foreign file or a client's pattern: `python -m tests.fuzz`."""
