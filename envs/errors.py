"""The one exception that reaches a person as a single line instead of a traceback."""


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line that says what to change."""
