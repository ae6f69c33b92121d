"""The bridge's side of the broker: the one session, and what is asked of it."""
