"""Load thousands of damaged or hostile ONNX files, and report crashes, hangs and other faults.

`python -m bench.fuzz_networks --count 10000 --seed 1 [--log FILE] [--keep FOLDER]`, from the
repository's root. The files are shipped networks, changed by `tests/fuzz/networks.py`; each is
loaded as `--model` for a frame of 64x48. Findings are those of `bench.fuzz`.
"""

import contextlib
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.fuzz import run_campaign
from bench.watchdog import Campaign, Outcome
from tests.fuzz.networks import hostile, make_networks
from vsr.errors import VsrError
from vsr.files.frames import upscale_frames
from vsr.inference.models import ENGINES
from vsr.media.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Networks(Campaign):
    """A campaign over damaged networks."""

    def write(self, index: int, folder: Path) -> Path:
        """Write the damaged network number `index` into a folder."""
        origin = self.origin(index)
        path = folder / f"{index}{origin.suffix}"
        path.write_bytes(hostile(origin.read_bytes(), self.seed, index))
        return path


def outcome_of(campaign: Campaign, index: int) -> Outcome:
    """Load one damaged network and enlarge a frame with it, in this process."""
    began = time.monotonic()
    path = campaign.write(index, campaign.folder)
    planes = (np.full((48, 64), 99, np.uint8), *(np.full((24, 32), 128, np.uint8),) * 2)
    frame = Frame(planes=planes, index=0, pts=0, time_base=Fraction(1, 25), duration=1)
    end, words = "done", ""
    try:
        for large in upscale_frames([frame], model=str(path)):
            height, width = large.planes[0].shape
            if width % 64 or height % 48:
                end, words = "unreadable", f"{width}x{height}"
    except VsrError as exc:
        end, words = "refused", str(exc)
        if "\n" in words or len(words) > 1000:
            end = "traceback"
    except BaseException:
        end, words = "traceback", traceback.format_exc()
    path.unlink()
    return Outcome(
        index=index, name=campaign.origin(index).name, end=end, words=words,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


@contextlib.contextmanager
def prepare_campaign(seed: int) -> Iterator[Networks]:
    """Yield a campaign with its networks, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vsr-fuzz-") as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        (folder / "work").mkdir()
        corpus = tuple(make_networks(folder / "corpus", ENGINES))
        yield Networks(seed=seed, corpus=corpus, folder=folder / "work")


if __name__ == "__main__":
    sys.exit(run_campaign(__doc__, outcome_of, lambda given: prepare_campaign(given.seed)))
