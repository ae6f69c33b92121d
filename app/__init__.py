"""Tidegate, the bridge: an HTTP face for an MQTT broker."""
