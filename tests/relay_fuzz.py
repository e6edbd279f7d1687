"""Damaged FLV files, and the whole relay over each of them: a process of its own, as it may die.

`python -m tests.relay_fuzz FOLDER` relays every file of a folder, several at a time because a file
goes at its own pace, and writes a line of JSON for each: its name, pictures out, seconds, what
became of it, and the words it ended with.
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
"""For one file: clips of a second whose times may leap by 10 s, which is still a pause."""
GRACE_S = 5.0
"""For a relay to end once it is told to."""
HEADER = 13
"""Bytes before the first tag."""


@dataclass
class Tag:
    """A tag of an FLV file: kind (8 sound, 9 picture, 18 script), time (ms) and content."""

    kind: int
    time: int
    data: bytearray
    size: int | None = None
    """What it says its size is, where that is not so."""

    def packed(self) -> bytes:
        """As it stands in a file."""
        size = len(self.data) if self.size is None else self.size
        stamp = self.time & 0xFFFFFFFF
        head = struct.pack(
            ">B3s3sB3s", self.kind & 0xFF, (size & 0xFFFFFF).to_bytes(3, "big"),
            (stamp & 0xFFFFFF).to_bytes(3, "big"), stamp >> 24, b"\0\0\0",
        )  # fmt: skip
        return head + self.data + struct.pack(">I", 11 + len(self.data))


def tags(data: bytes) -> list[Tag]:
    """The tags of a whole FLV file."""
    found, at = [], HEADER
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        stamp = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        found.append(Tag(data[at], stamp, bytearray(data[at + 11 : at + 11 + size])))
        at += 15 + size
    return found


def mutants(count: int, *valid: bytes, seed: int = 5) -> Iterator[bytes]:
    """Files with tags and bytes damaged in ways that get past the first look at a file."""
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
    """One damage to one tag, or to their order."""
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
        for head in made[:3]:  # sizes, rates and codecs stand in the first of each kind
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
        tag.data[0] = dice.randrange(256)  # codec, kind of picture, rate of sound
    elif way == 4:
        tag.data[1] = dice.choice((0, 1, 2, 3, 255))  # a header of the codec, or pictures
    elif way == 5:
        tag.data[5:9] = struct.pack(">I", dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
    else:
        for _ in range(dice.choice((1, 8, 64))):
            tag.data[dice.randrange(len(tag.data))] = dice.randrange(256)


def relayed(path: Path, target: Path) -> tuple[int, float, str, str]:
    """Pictures out, seconds, what became of it and its words, of a relay of that file."""
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
    """Relay all files of a folder; what hangs ends the process with every thread's traceback."""
    writing = threading.Lock()
    targets = folder.with_name(f"{folder.name}-out")
    targets.mkdir(exist_ok=True)

    def one(path: Path) -> None:
        target = targets / f"{path.stem}.mkv"
        row = [path.name, *relayed(path, target)]
        target.unlink(missing_ok=True)
        with writing:
            faulthandler.dump_traceback_later(LIMIT_S + GRACE_S, exit=True)  # anew with every end
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()

    faulthandler.enable()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, sorted(folder.iterdir())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
