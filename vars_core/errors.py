"""The one kind of error that a command prints as a line instead of a trace."""


class InputError(Exception):
    """Something that the user gave can't be used.

    The message names the file, row or parameter, what was found and what was expected."""

    def _render_traceback_(self) -> list[str]:
        # IPython asks for it: a notebook shows the line too, and not the way through our code
        return [f"{type(self).__name__}: {self}"]
