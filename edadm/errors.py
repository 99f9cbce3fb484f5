"""What a user can mend; the command line prints it as one sentence, without a traceback."""


class EdadmError(ValueError):
    """Bad input, with a sentence that says what to change."""
