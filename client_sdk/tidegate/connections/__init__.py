"""MQTT clients that stand behind ``tidegate.connection``: one module a client library."""
