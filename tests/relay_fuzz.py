"""Damages FLV files and relays them in a separate process, which may crash.

`python -m tests.relay_fuzz FOLDER` relays every file of a folder, several in parallel because a
file is played in real time. It writes a line of JSON per file: name, number of output frames,
seconds, outcome and message.
"""

import faulthandler
import json
import random
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vsr.errors import VsrError
from vsr.live.relay import Relay
from vsr.live.settings import RelaySettings
from vsr.media.encoder import EncoderSettings

AT_ONCE = 8
LIMIT_S = 40.0
"""Limit per file, in seconds. Clips last 1 s, but a time jump of up to 10 s is a pause."""
GRACE_S = 5.0
"""Time for a relay to end after the stop event, in seconds."""
HEADER = 13
"""Number of bytes before the first tag."""


@dataclass
class Tag:
    """A tag of an FLV file: kind (8 audio, 9 video, 18 script), time (ms) and payload."""

    kind: int
    time: int
    data: bytearray
    size: int | None = None
    """Declared payload size if it differs from the actual size, else None."""

    def packed(self) -> bytes:
        """Return the bytes of the tag in an FLV file."""
        size = len(self.data) if self.size is None else self.size
        stamp = self.time & 0xFFFFFFFF
        head = struct.pack(
            ">B3s3sB3s", self.kind & 0xFF, (size & 0xFFFFFF).to_bytes(3, "big"),
            (stamp & 0xFFFFFF).to_bytes(3, "big"), stamp >> 24, b"\0\0\0",
        )  # fmt: skip
        return head + self.data + struct.pack(">I", 11 + len(self.data))


def tags(data: bytes) -> list[Tag]:
    """Return the tags of a whole FLV file."""
    found, at = [], HEADER
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        stamp = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        found.append(Tag(data[at], stamp, bytearray(data[at + 11 : at + 11 + size])))
        at += 15 + size
    return found


def mutants(count: int, *valid: bytes, seed: int = 5) -> Iterator[bytes]:
    """Yield files with damaged tags and bytes that still pass a demuxer's first checks."""
    dice = random.Random(seed)
    for k in range(count):
        data = valid[k % len(valid)]
        made = tags(data)
        for _ in range(dice.choice((1, 2, 5, 20))):
            _damage(made, dice)
        whole = bytearray(data[:HEADER] + b"".join(tag.packed() for tag in made))
        if k % 4 == 0:
            for _ in range(dice.choice((1, 10, 100))):
                whole[dice.randrange(len(whole))] = dice.randrange(256)
        if k % 5 == 0:
            del whole[dice.randrange(len(whole)) :]
        yield bytes(whole)


def _damage(made: list[Tag], dice: random.Random) -> None:
    """Damage one tag, or the order of the tags."""
    place, other, some = (dice.randrange(n) for n in (len(made), len(made), 10))
    way = dice.randrange(11)
    if way < 7:
        _damage_tag(made[place], way, dice)
    elif way == 7:
        made[place:place] = made[place : place + some]
    elif way == 8 and len(made) > 12:
        del made[place : place + some]
    elif way == 9:
        made[place], made[other] = made[other], made[place]
    else:
        for head in made[:3]:  # the first tag of each kind holds sizes, rates and codecs
            if head.data:
                head.data[dice.randrange(len(head.data))] ^= 1 << dice.randrange(8)


def _damage_tag(tag: Tag, way: int, dice: random.Random) -> None:
    if way == 0:
        tag.time = dice.choice((0, 1 << 31, -1, tag.time + dice.randrange(-3000, 3000)))
    elif way == 1:
        tag.kind = dice.choice((8, 9, 18, 0, 15, 0x29, dice.randrange(256)))
    elif way == 2:
        tag.size = dice.choice((0, 1, len(tag.data) + 1, 0xFFFFFF, dice.randrange(70_000)))
    elif len(tag.data) < 9:
        return
    elif way == 3:
        tag.data[0] = dice.randrange(256)  # codec, frame type, sample rate
    elif way == 4:
        tag.data[1] = dice.choice((0, 1, 2, 3, 255))  # codec header or frame data
    elif way == 5:
        tag.data[5:9] = struct.pack(">I", dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
    else:
        for _ in range(dice.choice((1, 8, 64))):
            tag.data[dice.randrange(len(tag.data))] = dice.randrange(256)


def relayed(path: Path, target: Path) -> tuple[int, float, str, str]:
    """Relay a file; return the number of output frames, seconds, outcome and message."""
    stop, began = threading.Event(), time.monotonic()
    alarm = threading.Timer(LIMIT_S, stop.set)
    alarm.start()
    settings = RelaySettings(
        model="bicubic", max_latency=3.0, encoder=EncoderSettings(preset="ultrafast")
    )
    relay = Relay(str(path), [str(target)], settings)
    became, words = "ended", ""
    try:
        relay.run(stop)
        words = "; ".join(relay.report.losses)
    except VsrError as exc:
        became, words = "refused", str(exc)
    except Exception as exc:  # a user would see a traceback
        became, words = "defect", f"{type(exc).__name__}: {exc}"
    alarm.cancel()
    became = "stopped" if stop.is_set() else became
    return relay.report.frames_out, time.monotonic() - began, became, words


def main(folder: Path) -> None:
    """Relay all files of a folder; if one hangs, print all threads' tracebacks and exit."""
    writing = threading.Lock()
    targets = folder.with_name(f"{folder.name}-out")
    targets.mkdir(exist_ok=True)

    def one(path: Path) -> None:
        target = targets / f"{path.stem}.mkv"
        row = [path.name, *relayed(path, target)]
        target.unlink(missing_ok=True)
        with writing:
            faulthandler.dump_traceback_later(LIMIT_S + GRACE_S, exit=True)  # restarts the timer
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()

    faulthandler.enable()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, sorted(folder.iterdir())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
