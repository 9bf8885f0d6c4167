"""TLS by memory BIO on both stacks, with real programs on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import subprocess
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.sites import PATIENCE, Site, in_thread, port_of, receive_all

BULK = random.Random(8).randbytes(3_000_000)


@contextlib.asynccontextmanager
async def greeter(stack: Site, context: Any, **options: Any) -> Any:
    """Answers each line as HTTP would, so that curl is content too."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.readline() not in (b"\r\n", b"\n", b""):
                pass
            body = (writer.get_extra_info("ssl_object").version() or "").encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(greet, stack.address, 0, ssl=context, **options)
    async with server:
        yield server


# ---- programs as clients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["ssl", "pyopenssl"])
def test_curl_and_s_client_speak_tls_1_3_with_our_server(stack: Site, certificates: Certificates, library: str) -> None:
    context = certificates.server() if library == "ssl" else certificates.pyopenssl_server()

    async def main() -> None:
        async with greeter(stack, context) as server:
            port = port_of(server)
            curl = await in_thread(
                stack.command, ["curl", "-sS", "--cacert", certificates.ca, f"https://{stack.address}:{port}/"]
            )
            assert (curl.returncode, curl.stdout) == (0, "TLSv1.3"), curl.stderr
            s_client = await in_thread(
                stack.command,
                [
                    "sh",
                    "-c",
                    f"printf 'GET / HTTP/1.1\\r\\n\\r\\n' | openssl s_client -connect {stack.address}:{port}"
                    f" -CAfile {certificates.ca} -tls1_3 -verify_return_error -ign_eof",
                ],
            )
            assert "HTTP/1.1 200 OK" in s_client.stdout, s_client.stderr
            assert "TLSv1.3" in s_client.stdout
            assert "Verification: OK" in s_client.stdout

    stack.run(main)


def test_curl_that_does_not_trust_us_does_no_harm(stack: Site, certificates: Certificates) -> None:
    async def main() -> None:
        async with greeter(stack, certificates.server()) as server:
            url = f"https://{stack.address}:{port_of(server)}/"
            refused = await in_thread(stack.command, ["curl", "-sS", url])
            assert refused.returncode == 60  # CURLE_PEER_FAILED_VERIFICATION
            served = await in_thread(stack.command, ["curl", "-sS", "--cacert", certificates.ca, url])
            assert served.stdout == "TLSv1.3"

    stack.run(main)


# ---- our client ------------------------------------------------------------------------------------------------------


def kernel_tls_echo(context: ssl.SSLContext) -> Any:
    def serve(peer: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            with context.wrap_socket(peer, server_side=True) as tls:
                while data := tls.recv(1 << 16):
                    tls.sendall(data)

    return serve


@pytest.mark.parametrize("library", ["ssl", "pyopenssl"])
def test_our_client_speaks_with_a_kernel_server(stack: Site, certificates: Certificates, library: str) -> None:
    context = certificates.client() if library == "ssl" else certificates.pyopenssl_client()

    async def main() -> None:
        with stack.serve(kernel_tls_echo(certificates.server())) as server:
            reader, writer = await asyncio.open_connection(*server.address, ssl=context)
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert writer.get_extra_info("peername") == server.address
            sending = asyncio.create_task(send(writer, BULK))
            assert await reader.readexactly(len(BULK)) == BULK
            await sending
            writer.close()
            await writer.wait_closed()

    stack.run(main)


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    for start in range(0, len(data), 100_000):
        writer.write(data[start : start + 100_000])
        await writer.drain()


def test_our_client_speaks_with_openssl_s_server(stack: Site, certificates: Certificates) -> None:
    with stack.listen() as reserved:
        port = reserved.getsockname()[1]
    command = [
        "openssl",
        "s_server",
        "-accept",
        f"{stack.peer_address}:{port}",
        "-cert",
        certificates.chain,
        "-key",
        certificates.key,
        "-www",
        "-tls1_3",
    ]

    async def main() -> None:
        with stack.popen(command, stdin=-3, stdout=subprocess.PIPE, stderr=-2) as s_server:
            try:
                assert s_server.stdout is not None
                await in_thread(lambda: list(iter(s_server.stdout.readline, b"ACCEPT\n")))
                reader, writer = await asyncio.open_connection(stack.peer_address, port, ssl=certificates.client())
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                assert b"TLSv1.3" in await reader.read()
                writer.close()
                await writer.wait_closed()
            finally:
                s_server.kill()

    stack.run(main)


@pytest.mark.parametrize("library", ["ssl", "pyopenssl"])
def test_certificate_that_is_not_trusted_is_a_verification_error(
    stack: Site, certificates: Certificates, library: str
) -> None:
    context = certificates.client(False) if library == "ssl" else certificates.pyopenssl_client(False)

    async def main() -> None:
        with stack.serve(kernel_tls_echo(certificates.server())) as server:
            with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed") as caught:
                await asyncio.open_connection(*server.address, ssl=context)
            assert library == "pyopenssl" or isinstance(caught.value, ssl.SSLCertVerificationError)

    stack.run(main)


def test_certificate_for_another_host_is_a_verification_error(stack: Site, certificates: Certificates) -> None:
    async def main() -> None:
        with stack.serve(kernel_tls_echo(certificates.server())) as server:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.com"):
                await asyncio.open_connection(*server.address, ssl=certificates.client(), server_hostname="example.com")

    stack.run(main)


# ---- start_tls -------------------------------------------------------------------------------------------------------


def test_start_tls_on_our_server(stack: Site, certificates: Certificates) -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(certificates.server())
        writer.write((await reader.readexactly(len(BULK)))[::-1])
        await writer.drain()
        writer.close()

    def client(port: int) -> bytes:
        with stack.connect(port) as peer:
            peer.sendall(b"STARTTLS\n")
            assert peer.recv(3) == b"go\n"
            with certificates.client().wrap_socket(peer, server_hostname="localhost") as tls:
                assert tls.version() == "TLSv1.3"
                tls.sendall(BULK)
                return receive_all(tls)

    async def main() -> None:
        server = await asyncio.start_server(upgrade, stack.address, 0)
        async with server:
            assert await in_thread(client, port_of(server)) == BULK[::-1]

    stack.run(main)


def test_start_tls_on_our_client(stack: Site, certificates: Certificates) -> None:
    def upgrade(peer: socket.socket) -> None:
        assert peer.recv(100) == b"STARTTLS\n"
        peer.sendall(b"go\n")
        kernel_tls_echo(certificates.server())(peer)

    async def main() -> None:
        with stack.serve(upgrade) as server:
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go\n"
            await writer.start_tls(certificates.client(), server_hostname="localhost")
            assert writer.get_extra_info("cipher")
            sending = asyncio.create_task(send(writer, BULK))
            assert await reader.readexactly(len(BULK)) == BULK
            await sending
            writer.close()
            await writer.wait_closed()

    stack.run(main)


# ---- peers that misbehave --------------------------------------------------------------------------------------------


def test_handshake_that_does_not_come_times_out_on_the_server(stack: Site, certificates: Certificates) -> None:
    async def main() -> None:
        async with greeter(stack, certificates.server(), ssl_handshake_timeout=0.3) as server:
            with stack.connect(port_of(server)) as peer:
                with contextlib.suppress(ConnectionResetError):
                    assert await in_thread(peer.recv, 1) == b""

    stack.run(main)


def test_handshake_that_does_not_come_times_out_on_the_client(stack: Site, certificates: Certificates) -> None:
    async def main() -> None:
        with stack.listen() as mute:
            with pytest.raises(ConnectionAbortedError, match="handshake"):
                await asyncio.open_connection(*mute.getsockname(), ssl=certificates.client(), ssl_handshake_timeout=0.3)

    stack.run(main)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), b""])
def test_peer_that_does_not_speak_tls_does_no_harm(stack: Site, certificates: Certificates, noise: bytes) -> None:
    async def main() -> None:
        async with greeter(stack, certificates.server(), ssl_handshake_timeout=1) as server:

            def babble() -> None:
                with stack.connect(port_of(server)) as peer, contextlib.suppress(ConnectionError):
                    peer.sendall(noise)
                    if not noise:
                        peer.shutdown(socket.SHUT_WR)
                    receive_all(peer)

            await in_thread(babble)
            curl = await in_thread(
                stack.command,
                ["curl", "-sS", "--cacert", certificates.ca, f"https://{stack.address}:{port_of(server)}/"],
            )
            assert curl.stdout == "TLSv1.3", curl.stderr

    stack.run(main, timeout=PATIENCE * 3)
