"""The way to a broker, step by step: for `tidegate doctor`, and for testing a credential."""
