"""What may stand between a run and its endpoint: a proxy that notes what it is told, and TLS of our
own.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

PIECE = 65_536


class Listener:
    """A TCP server on 127.0.0.1 in threads of its own; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._open = True

    def __enter__(self) -> Listener:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False
        self._socket.close()

    def _accept(self) -> None:
        while self._open:
            with suppress(OSError):
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.talk(connection)

    def talk(self, connection: socket.socket) -> None:
        """Serve one connection, which is closed afterwards."""
        raise NotImplementedError


class RecordingProxy(Listener):
    """Lets every CONNECT through to one port of this machine; `told` has what it was told, in plain
    text.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.told: list[str] = []
        self._to = port

    def talk(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(PIECE)
            if not piece:
                return
            head += piece
        self.told.append(head.decode("latin-1"))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self._to)) as other:
            relay(connection, other)


class TlsFront(Listener):
    """TLS before a server that speaks plain HTTP, with a certificate of `certificate`."""

    def __init__(self, port: int, certificate: Path) -> None:
        super().__init__()
        self._to = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)

    def talk(self, connection: socket.socket) -> None:
        secured = self._context.wrap_socket(connection, server_side=True)
        with secured, socket.create_connection(("127.0.0.1", self._to)) as other:
            relay(secured, other)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Pass on what each says to the other, until either has ended."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError, ValueError):
            while piece := source.recv(PIECE):
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=pass_on, args=[other, one], daemon=True).start()
    pass_on(one, other)


def certificate(folder: Path, host: str) -> Path:
    """A self-signed certificate for a host and its key, in one file; whoever trusts it trusts the
    host.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        of: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        of = x509.DNSName(host)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([of]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    path = folder / f"{host}.pem"
    path.write_bytes(
        made.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return path


class FixedAnswer(Listener):
    """Answers every request with one status and body, at any path."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self.address = f"http://127.0.0.1:{self.port}"
        head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._answer = head.encode() + body

    def talk(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as request:
            length = 0
            for line in request:
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
                if line == b"\r\n":
                    break
            request.read(length)
        connection.sendall(self._answer)
