"""The errors that a user can fix, and how messages quote file names and the errors of other
libraries."""

import re

# Control characters, with the escape sequences of terminals among them; and line separators.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class UserError(ValueError):
    """An error that the user can fix: a file, an option or an argument that is not as expected.

    Its message says what was expected, what came instead and what to do. The commands print the
    message alone, as they do for an OSError. Every other error is a fault of this program, and
    keeps its traceback.
    """


def one_line(error: BaseException) -> str:
    """Returns the first 200 characters of the message of an error, or its class, without line
    breaks and control characters."""
    message = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(message.split())[:200] or type(error).__name__


def printable(text: object) -> str:
    """Returns the text, such as a file name, as one line without escape sequences for terminals:
    escapes line breaks, other control characters and what UTF-8 cannot encode."""
    encoded = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), encoded)
