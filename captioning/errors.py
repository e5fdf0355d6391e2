"""The errors that a user can mend, and how the errors of other libraries are quoted in them."""


class UserError(ValueError):
    """An error that the user can mend: a file, an option or an argument that is not as expected.

    Its message says what was expected, what came instead and what to do. The commands print it in
    one line, as they do an OSError. Every other error is a fault of this program, and keeps its
    traceback.
    """


def one_line(error: BaseException, characters: int = 200) -> str:
    """Returns the beginning of the message of an error, or its class, without line breaks and
    control characters."""
    message = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(message.split())[:characters] or type(error).__name__
