"""The station's page: a web application in a process of its own that the stream hands its latest state."""
