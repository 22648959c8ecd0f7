"""Text for one line of a terminal."""


def one_line(text: str) -> str:
    """The text without anything that could break or colour a line: control characters become escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
