"""Runs a command where nothing can be reached, and counts what it tries to reach.

`unshare --map-root-user --net python tests/alone.py REPORT COMMAND...`: in a network namespace of
its own, with no interface but loopback, the kernel counts every datagram and every connection to
elsewhere as having no route. The number is written to REPORT; the exit code is the command's.
"""

import fcntl
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

_SET_FLAGS: Final = 0x8914  # SIOCSIFFLAGS
_UP: Final = 0x1  # IFF_UP


def raise_loopback() -> None:
    """Bring the namespace's `lo` up, so that a relay can publish to 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        fcntl.ioctl(some, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))


def unroutable() -> int:
    """What was sent in this namespace to addresses that have no route, IPv4 and IPv6."""
    names, values = (
        line.split()
        for line in Path("/proc/net/snmp").read_text().splitlines()
        if line.startswith("Ip:")
    )
    found = re.search(r"^Ip6OutNoRoutes\s+(\d+)", Path("/proc/net/snmp6").read_text(), re.MULTILINE)
    return int(values[names.index("OutNoRoutes")]) + int(found[1] if found else 0)


def main() -> int:
    """See the module."""
    report, *command = sys.argv[1:]
    raise_loopback()
    code = subprocess.run(command, check=False).returncode
    Path(report).write_text(str(unroutable()))
    return code


if __name__ == "__main__":
    sys.exit(main())
