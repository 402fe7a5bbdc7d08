"""A throwaway certificate authority, by the openssl program."""

from __future__ import annotations

import subprocess
from pathlib import Path

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
ROOT = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
LEAF = """\
subjectAltName={names}
extendedKeyUsage=serverAuth
keyUsage=critical,digitalSignature
basicConstraints=critical,CA:FALSE
authorityKeyIdentifier=keyid
"""


def openssl(*argv: str) -> None:
    subprocess.run(["openssl", *argv], check=True, capture_output=True, timeout=20)


class Authority:
    """`ca.pem` in `folder` is what clients trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ca, self._key = folder, folder / "ca.pem", folder / "ca.key"
        extensions = [word for line in ROOT for word in ("-addext", line)]
        files = ("-keyout", str(self._key), "-out", str(self.ca))
        openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", "/CN=Throwaway CA", *files, *extensions)

    def issue(self, *names: str) -> tuple[Path, Path]:
        """A server certificate for DNS names and IP addresses; (certificate, key)."""
        stem = self.folder / names[0].replace(":", "_")
        cert, key, request, extensions = (
            stem.with_name(stem.name + end) for end in (".pem", ".key", ".csr", ".ext")
        )
        kinds = ",".join(
            ("IP:" if name.replace(".", "").isdigit() or ":" in name else "DNS:") + name for name in names
        )
        extensions.write_text(LEAF.format(names=kinds))
        openssl(
            "req", "-new", *NEW_KEY, "-subj", f"/CN={names[0]}", "-keyout", str(key), "-out", str(request)
        )
        signer = ("-CA", str(self.ca), "-CAkey", str(self._key), "-CAcreateserial")
        openssl(
            "x509",
            "-req",
            "-in",
            str(request),
            *signer,
            "-days",
            "2",
            "-extfile",
            str(extensions),
            "-out",
            str(cert),
        )
        return cert, key
