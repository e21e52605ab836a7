"""How texts that anybody may have written are shown."""


def shown(text: str, longest: int = 80) -> str:
    """A text in ASCII, shortened: nothing in it that a terminal would obey."""
    escaped = ascii(text)[1:-1]
    return escaped if len(escaped) <= longest else f"{escaped[:longest]}..."
