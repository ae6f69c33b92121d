"""The log: how a record is written, what is taken out of it, and which request it belongs to.

The code logs with ``logging.getLogger``; structlog makes the lines.
"""
