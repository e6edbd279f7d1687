"""Define the error for problems that the user can fix; its message is shown as one line."""


class TrainError(Exception):
    """A recipe, file or folder cannot be used as requested."""
