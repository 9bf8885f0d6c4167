"""Certificates for a stack's addresses, and contexts of ssl and pyOpenSSL made with them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme
from OpenSSL import SSL

from tests.support.sites import Site


class Certificates:
    """An authority of our own, and a certificate for a stack's two addresses."""

    def __init__(self, folder: Path, stack: Site) -> None:
        self.authority = trustme.CA()
        made = self.authority.issue_cert(stack.address, stack.peer_address, "localhost")
        self.ca, self.key, self.chain = (str(folder / name) for name in ("ca.pem", "key.pem", "chain.pem"))
        self.authority.cert_pem.write_to_path(self.ca)
        made.private_key_pem.write_to_path(self.key)
        made.cert_chain_pems[0].write_to_path(self.chain)

    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context

    def client(self, trusting: bool = True) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca if trusting else None)

    def pyopenssl_server(self) -> Any:
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_chain_file(self.chain)
        context.use_privatekey_file(self.key)
        return context

    def pyopenssl_client(self, trusting: bool = True) -> Any:
        context = SSL.Context(SSL.TLS_METHOD)
        if trusting:
            context.load_verify_locations(self.ca)
        context.set_verify(SSL.VERIFY_PEER, lambda *arguments: bool(arguments[-1]))
        return context
