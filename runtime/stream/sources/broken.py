"""How the readers of a camera's process say that a connection broke."""


class BrokenError(Exception):
    """The connection broke; the message says how, without the address."""
