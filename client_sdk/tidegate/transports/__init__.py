"""The two ways to a broker: directly, and through a bridge; one protocol for both."""
