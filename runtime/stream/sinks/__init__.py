"""Where decisions and events go: files, images, MQTT, webhooks, metrics."""
