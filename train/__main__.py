"""`python -m train`: the commands, or one line where the libraries of trainings are missing."""

import sys

try:
    from train.commands import main
except ModuleNotFoundError as exc:
    if (exc.name or "train").partition(".")[0] == "train":  # a defect of ours
        raise
    sys.exit(
        f"python -m train needs {exc.name}, which is not installed: "
        "run pip install -e '.[dev]' in the checkout"
    )

if __name__ == "__main__":
    main()
