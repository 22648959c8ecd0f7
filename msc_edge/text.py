"""Text for one line of a terminal."""


def one_line(text: str) -> str:
    """The text without anything that could break or colour a line: control characters become escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def valid_text(text: str) -> str:
    """The text as Unicode that any file can hold: bytes of a path that are none become backslash escapes."""
    try:
        # Bytes that Python could not decode are given back as they are; those of UTF-8 become readable again.
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, as Windows allows in names
        data = text.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")
