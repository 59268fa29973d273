"""Strangers between a run and its endpoint: none of them gets a key or a picture.
`tests/serving/test_who_gets_the_key.py` shows more.
"""

from __future__ import annotations

import functools
from pathlib import Path

from dataflow_grounding.testing import Fault, on
from tests.support.fault_cases.fault_case import (
    Case,
    Outcome,
    Witness,
    calm,
    lost_rows,
    undisturbed,
)
from tests.support.servings import KINDS, secrets_in
from tests.support.wires import RecordingProxy, TlsFront, certificate
from tests.support.workplace import Done, Workplace, ended

COUNT = 3
PROXY = "It gets its own password, never the endpoint's key or headers."


REDIRECT = "The run doesn't follow it, and nothing goes to another host."


UNTRUSTED = "The run sends nothing and stops with exit 4."


def proxied(kind: str, place: Workplace, full: bool) -> Outcome:
    """An https endpoint that is reached by a proxy with a password."""
    place.many(COUNT)
    trusted = certificate(place.folder, "models.example")
    with (
        Witness() as witness,
        TlsFront(witness.server.port, trusted) as front,
        RecordingProxy(front.port) as proxy,
    ):
        address = f"http://me:of-the-proxy-0815@127.0.0.1:{proxy.port}"
        env = {"https_proxy": address, "no_proxy": "", "SSL_CERT_FILE": str(trusted)}
        done = ended(place.start(env=env, **KINDS[kind][1]("https://models.example")))
        assert done.code == 0, done
        assert proxy.told
        assert not any(secrets_in(told) for told in proxy.told), proxy.told
        return Outcome(witness.sent, witness.twice, lost_rows(place, COUNT))


def redirected(kind: str, place: Workplace, full: bool) -> Outcome:
    """An endpoint that sends all on to another host."""
    place.many(COUNT)
    with Witness() as thief:
        moved = Fault(
            307, "moved", headers={"Location": f"{thief.server.base_url}/chat/completions"}
        )
        with Witness([on(moved)]) as witness:
            done = place.run(**KINDS[kind][1](witness.server.address))
            calm(done)
            assert (done.code, thief.server.bytes_received) == (4, 0), done
            witness.rules.clear()
            again = place.run(**KINDS[kind][1](witness.server.address))
            assert again.code == 0, again
            return Outcome(witness.sent, witness.twice, lost_rows(place, COUNT))


def untrusted(host: str, trusts: str, place: Workplace, full: bool) -> Outcome:
    """An endpoint at 127.0.0.1 with a certificate for `host`, where that for `trusts`
    is trusted.
    """
    place.many(COUNT)
    shown, trusted = certificate(place.folder, host), certificate(place.folder, trusts)
    right = certificate(place.folder, "127.0.0.1") if host == trusts else shown
    with Witness() as witness:
        with TlsFront(witness.server.port, shown) as front:
            done = _over_tls(place, front, trusted)
            calm(done)
            assert (done.code, witness.server.bytes_received) == (4, 0), done
        with TlsFront(witness.server.port, right) as front:
            again = _over_tls(place, front, right)
            assert again.code == 0, again
        assert place.files() == undisturbed(COUNT)
        return Outcome(witness.sent, witness.twice, lost_rows(place, COUNT))


def _over_tls(place: Workplace, front: TlsFront, trusted: Path) -> Done:
    env = {"SSL_CERT_FILE": str(trusted), "no_proxy": "*"}
    return ended(place.start(env=env, **KINDS["direct"][1](f"https://127.0.0.1:{front.port}")))


OTHER_HOST = functools.partial(untrusted, "models.example", "models.example")


STRANGERS: list[Case] = [
    *(Case(f"a proxy: {kind}", PROXY, functools.partial(proxied, kind)) for kind in KINDS),
    *(Case(f"redirected: {kind}", REDIRECT, functools.partial(redirected, kind)) for kind in KINDS),
    Case(
        "a certificate: untrusted",
        UNTRUSTED,
        functools.partial(untrusted, "127.0.0.1", "models.example"),
    ),
    Case("a certificate: of another host", UNTRUSTED, OTHER_HOST),
]
