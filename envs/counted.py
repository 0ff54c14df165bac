"""Numbers of things in sentences."""


def counted(number: int, what: str) -> str:
    """``1 runner``, ``2 runners``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
