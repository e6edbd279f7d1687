"""Finds the certificate authorities for the check of a server's certificate."""

import os
from typing import Final

_USUAL: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)


def ca_file() -> str:
    """Return the path of a file of certificate authorities (PEM): the system's, else certifi's.

    The environment variable `SSL_CERT_FILE` has priority over both, as in OpenSSL.
    """
    import ssl  # takes 10 ms to load; file inputs do not need it

    paths = ssl.get_default_verify_paths()
    for path in (os.environ.get(paths.openssl_cafile_env), paths.cafile, *_USUAL):
        if path and os.path.isfile(path):  # noqa: PTH113 - it may be anything
            return path
    import certifi  # only needed if the system has no such file

    return str(certifi.where())
