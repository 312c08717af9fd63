"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """Bad input: one line that says what, where and what to do.

    The command-line programs print it without a traceback and exit with 1.
    """
