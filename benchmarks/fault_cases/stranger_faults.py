"""Strangers between a run and its endpoint, or in the folder that it runs in: none of them gets a
key or a picture. `tests/serving/test_who_gets_the_key.py` and `tests/spec` show more.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from dataflow_grounding.testing import Fault, on
from tests.support.fault_cases.fault_case import (
    Case,
    Outcome,
    Witness,
    calm,
    lost_rows,
    undisturbed,
)
from tests.support.forking import Forked
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


OWN = "sk-users-own-key-5566778899aabb"


DOTENV = "It gets no other source's key. The run sends nothing and stops with exit 2."


ENVIRONMENT = "It is ignored: `.env` sets only keys and endpoints."


REFERENCES = "The spec is refused before it is expanded, with exit 2."


def strangers_address(place: Workplace, full: bool) -> Outcome:
    """A .env in the spec's folder that names an address and no key; then one with both."""
    place.many(COUNT)
    place.settings = {"vlm.backend": "auto", "vlm.check_every": None}
    with Witness() as witness:
        address = (
            f"DF_BASE_URL={witness.server.base_url}\nDF_MODEL=loopback\nDF_BOX_FORMAT=xyxy_px\n"
        )
        (place.folder / ".env").write_text(address)
        done = ended(place.start(env={"DF_API_KEY": OWN}))
        calm(done)
        assert (done.code, witness.server.bytes_received) == (2, 0), done
        (place.folder / ".env").write_text(f"{address}DF_API_KEY=of-the-file-4711\n")
        again = ended(place.start())
        assert again.code == 0, again
        assert place.files() == undisturbed(COUNT)
        return Outcome(witness.sent, witness.twice, lost_rows(place, COUNT))


def strangers_proxy(place: Workplace, full: bool) -> Outcome:
    """A .env in the spec's folder that names a proxy and a CA file."""
    place.many(COUNT)
    with Witness() as witness, Witness() as thief:
        names: dict[str, Any] = dict.fromkeys(
            ("http_proxy", "HTTP_PROXY", "all_proxy"), thief.server.address
        )
        names["SSL_CERT_FILE"] = "/evil.pem"
        (place.folder / ".env").write_text(
            "".join(f"{name}={value}\n" for name, value in names.items())
        )
        done = ended(place.start(**{"vlm.openai.base_url": witness.server.base_url}))
        calm(done)
        assert (done.code, thief.server.bytes_received) == (0, 0), done
        assert ".env does not set http_proxy, HTTP_PROXY" in done.err
        assert place.files() == undisturbed(COUNT)
        return Outcome(witness.sent, witness.twice, lost_rows(place, COUNT))


def endless_references(place: Workplace, full: bool) -> Outcome:
    levels = "".join(f"  k{level}: {f'${{x.k{level + 1}}}' * 10}\n" for level in range(12))
    spec = place.folder / "bomb.yaml"
    spec.write_text(
        f"results_dir: out\nautolabel_type: image_grounding\nx:\n{levels}  k12: yyyyyyyyyy\n"
    )
    done = ended(Forked(["generate", "-e", str(spec)]))
    calm(done)
    assert done.code == 2, done
    return Outcome()


STRANGERS: list[Case] = [
    *(Case(f"a proxy: {kind}", PROXY, functools.partial(proxied, kind)) for kind in KINDS),
    *(Case(f"redirected: {kind}", REDIRECT, functools.partial(redirected, kind)) for kind in KINDS),
    Case(
        "a certificate: untrusted",
        UNTRUSTED,
        functools.partial(untrusted, "127.0.0.1", "models.example"),
    ),
    Case("a certificate: of another host", UNTRUSTED, OTHER_HOST),
    Case("a stranger's .env: an address", DOTENV, strangers_address),
    Case("a stranger's .env: a proxy, a CA file", ENVIRONMENT, strangers_proxy),
    Case("a spec whose references expand to gigabytes", REFERENCES, endless_references),
]
