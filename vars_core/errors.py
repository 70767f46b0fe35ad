"""The one kind of error that a command prints as a line instead of a trace."""


class InputError(Exception):
    """Something that the user gave can't be used.

    The message names the file, row or parameter, what was found and what was expected."""
