"""Programs of the system that tests of live streams and of pages need.

Without one its tests skip, or fail where VSR_REQUIRE_LIVE=1 promises it (see conftest.py).
"""

import shutil
from pathlib import Path
from typing import Final

import pytest


def find(*names: str) -> str:
    """The first program of that name, or one that is an absolute path; empty where none is."""
    return next((found for name in names if (found := shutil.which(name))), "")


def needs(found: object, what: str) -> pytest.MarkDecorator:
    """Marks tests that need a program or library, by whether it was found."""
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
