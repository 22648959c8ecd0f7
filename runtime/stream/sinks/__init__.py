"""Where decisions and events go: files, pictures, MQTT, webhooks, metrics."""
