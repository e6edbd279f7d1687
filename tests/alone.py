"""Runs a command without network access and counts its attempts to reach other hosts.

`unshare --map-root-user --net python tests/alone.py REPORT COMMAND...`: in a separate network
namespace with only a loopback interface, the kernel counts each datagram and connection to another
host as having no route. The count is written to REPORT. The exit code is the command's.
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
    """Bring the namespace's `lo` interface up, so that a relay can publish to 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        fcntl.ioctl(some, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))


def unroutable() -> int:
    """Return the number of packets without a route in this namespace, IPv4 and IPv6."""
    names, values = (
        line.split()
        for line in Path("/proc/net/snmp").read_text().splitlines()
        if line.startswith("Ip:")
    )
    found = re.search(r"^Ip6OutNoRoutes\s+(\d+)", Path("/proc/net/snmp6").read_text(), re.MULTILINE)
    return int(values[names.index("OutNoRoutes")]) + int(found[1] if found else 0)


def main() -> int:
    """Run the command line described in the module's docstring and return the exit code."""
    report, *command = sys.argv[1:]
    raise_loopback()
    code = subprocess.run(command, check=False).returncode
    Path(report).write_text(str(unroutable()))
    return code


if __name__ == "__main__":
    sys.exit(main())
