"""The one error that a user of `train` can mend: its message is a line to show as it is."""


class TrainError(Exception):
    """A recipe, a file or a folder that cannot be used as asked."""
