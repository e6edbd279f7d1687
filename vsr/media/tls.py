"""Which authorities a server's certificate is checked against."""

import os
from typing import Final

_USUAL: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)


def ca_file() -> str:
    """Return the path of a file of authorities (PEM): the system's, else certifi's.

    `SSL_CERT_FILE` in the environment goes before both, as for OpenSSL.
    """
    import ssl  # takes 10 ms to load, and files need none

    paths = ssl.get_default_verify_paths()
    for path in (os.environ.get(paths.openssl_cafile_env), paths.cafile, *_USUAL):
        if path and os.path.isfile(path):  # noqa: PTH113 - it may be anything
            return path
    import certifi  # it is there, and only needed where the system has none

    return str(certifi.where())
