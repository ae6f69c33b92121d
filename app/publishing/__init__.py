"""What publishing is beyond one PUBLISH packet; knows neither the web framework nor the MQTT client."""
