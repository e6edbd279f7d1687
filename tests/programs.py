"""Finds the system programs that tests of live streams and of pages need.

If one is missing, its tests are skipped, or fail with VSR_REQUIRE_LIVE=1 (see conftest.py).
"""

import shutil
from pathlib import Path
from typing import Final

import pytest


def find(*names: str) -> str:
    """Return the path of the first program found (by name or absolute path), or an empty string."""
    return next((found for name in names if (found := shutil.which(name))), "")


def needs(found: object, what: str) -> pytest.MarkDecorator:
    """Return the marker for tests that need a program or library, with whether it was found."""
    return pytest.mark.needs(bool(found), what)


NGINX: Final = find("nginx", "/usr/sbin/nginx")
RTMP_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
CHROMIUM: Final = find("chromium", "chromium-browser")
FFMPEG: Final = find("ffmpeg")
FFPROBE: Final = find("ffprobe")

needs_nginx = needs(
    NGINX and RTMP_MODULE.exists(),
    "nginx and its RTMP module (Debian: nginx, libnginx-mod-rtmp)",
)
needs_chromium = needs(CHROMIUM, "Chromium (Debian: chromium)")
needs_ffmpeg = needs(FFMPEG, "ffmpeg (Debian: ffmpeg)")
needs_ffprobe = needs(FFPROBE, "ffprobe (Debian: ffmpeg)")
needs_openssl = needs(find("openssl"), "openssl (Debian: openssl)")
