"""The class of the errors that a user can mend."""


class UserError(ValueError):
    """An error that the user can mend: a file, an option or an argument that is not as expected.

    Its message says what was expected, what came instead and what to do. The commands print it in
    one line, as they do an OSError. Every other error is a fault of this program, and keeps its
    traceback.
    """
