"""The users of a station's page."""
