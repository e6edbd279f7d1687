"""Run `python -m train`; print a one-line error if a training library is missing."""

import sys

try:
    from train.commands import main
except ModuleNotFoundError as exc:
    if (exc.name or "train").partition(".")[0] == "train":  # a bug in this package
        raise
    sys.exit(
        f"python -m train needs {exc.name}, which is not installed: "
        "run pip install -e '.[dev]' in the checkout"
    )

if __name__ == "__main__":
    main()
