"""Fan-out with MQTT's semantics: many listeners over one broker session.

Knows neither the web framework nor the MQTT client: messages come in through ``Hub.deliver``, subscriptions
go out through ``Upstream``, and listeners are drained by whoever writes to the network.
"""
