"""``/v1/credentials`` over HTTP: kept, shown, tried, taken into use and deleted; no key comes back."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.issued import NOW, issue
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK
from tests.support.tls_brokers import Plant, bridge_with_store, make_plant, strict_broker
from tests.support.tokens import SECRET, token


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """An authority and its broker's certificate."""
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def broker(plant: Plant) -> Iterator[Mosquitto]:
    """A broker that wants client certificates."""
    with strict_broker(plant) as running:
        yield running


@pytest.fixture
def bridge(broker: Mosquitto, plant: Plant, tmp_path: Path) -> Iterator[Bridge]:
    """A bridge with a store of its own."""
    with bridge_with_store(broker.url, plant, tmp_path / "store") as running:
        yield running


def archive(**files: bytes) -> bytes:
    """A ZIP with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def test_a_credential_comes_and_goes(bridge: Bridge, plant: Plant) -> None:
    """New: 201; again: 200, with the same content no new revision; shown without its key; deleted: 204."""
    device = plant.device()
    first = bridge.client.put("/v1/credentials/plant-7", json=plant.parts(device))
    assert (201, "no-store") == (first.status_code, first.headers["cache-control"])
    again = bridge.client.put("/v1/credentials/plant-7", json=plant.parts(device))
    assert (200, first.json()) == (again.status_code, again.json())
    shown = bridge.client.get("/v1/credentials/plant-7").json()
    assert shown == first.json()
    assert ("CN=device-1", "CN=Plant Root", 89, False) == (
        shown["certificate"]["subject"],
        shown["certificate"]["issuer"],
        shown["days_left"],
        shown["active"],
    )
    assert re.fullmatch("[0-9a-f]{64}", shown["certificate"]["fingerprint"])
    listed = bridge.client.get("/v1/credentials").json()
    assert {"credentials": [shown], "unreadable": []} == listed
    gone = bridge.client.delete("/v1/credentials/plant-7")
    assert (204, b"", "no-store") == (gone.status_code, gone.content, gone.headers["cache-control"])
    assert problem(bridge, "GET", "/v1/credentials/plant-7") == (404, "no-credential")
    assert problem(bridge, "DELETE", "/v1/credentials/plant-7") == (404, "no-credential")


def problem(bridge: Bridge, method: str, path: str, **request: object) -> tuple[int, str]:
    """Status and type of a refusal."""
    answer = bridge.client.request(method, path, **request)  # type: ignore[arg-type]
    assert "application/problem+json" == answer.headers["content-type"], answer.text
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_files_of_every_form(bridge: Bridge, plant: Plant) -> None:
    """A ZIP, PEM, and PKCS#12 with its passphrase are one and the same credential."""
    device = plant.device()
    kit = archive(**{"a.txt": b"read me", "b": device.pem, "c": device.key(), "d": plant.root.pem})
    pem = device.key() + device.pem + plant.root.pem
    forms = {
        "application/zip": kit,
        "application/x-pem-file": pem,
        "application/pem-certificate-chain": pem,
        "application/octet-stream": kit,
        "application/pkcs12": device.pkcs12(plant.root, passphrase="open sesame"),
    }
    revisions = set()
    for content_type, body in forms.items():
        headers = {"Content-Type": content_type, "Credential-Passphrase": "open sesame"}
        answer = bridge.client.put("/v1/credentials/any", content=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        revisions.add(answer.json()["revision"])
    assert 1 == len(revisions)
    aws = {"certificatePem": device.pem.decode(), "keyPair": {"PrivateKey": device.key().decode()}}
    answer = bridge.client.put("/v1/credentials/aws", json=aws)
    assert (201, []) == (answer.status_code, answer.json()["authorities"])


@pytest.mark.parametrize(
    ("content_type", "body", "status", "kind"),
    [
        ("text/html", b"x", 415, "unsupported-media-type"),
        ("multipart/form-data; boundary=x", b"x", 415, "unsupported-media-type"),
        ("application/json", b"{", 400, "malformed-body"),
        ("application/json", b'{"ca": 1}', 422, "invalid-body"),
        ("application/json", b'{"ca": "x", "kay": "y"}', 422, "invalid-body"),
        ("application/json", b'{"ca": "no certificate"}', 422, "invalid-credential"),
        ("application/json", b"{}", 422, "invalid-credential"),
        ("application/zip", b"PK\x03\x04 broken", 422, "invalid-credential"),
        ("application/zip", b"", 422, "invalid-credential"),
        ("application/zip", b"\0" * (1024 * 1024 + 1), 413, "body-too-large"),
    ],
)
def test_what_is_no_credential_is_refused(
    bridge: Bridge, content_type: str, body: bytes, status: int, kind: str
) -> None:
    """Each with its problem, and nothing is kept."""
    headers = {"Content-Type": content_type}
    assert (status, kind) == problem(bridge, "PUT", "/v1/credentials/x", content=body, headers=headers)
    assert [] == bridge.client.get("/v1/credentials").json()["credentials"]


def test_a_client_that_leaves_in_the_midst_of_it(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """An upload that is broken off is nobody's error, and leaves nothing."""
    head = b"PUT /v1/credentials/x HTTP/1.1\r\nHost: b\r\nContent-Type: application/zip\r\n"
    with socket.create_connection((LOOPBACK, bridge.port), timeout=30) as connection:
        connection.sendall(head + b"Content-Length: 99\r\n\r\nPK")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            continue
    assert [] == bridge.client.get("/v1/credentials").json()["credentials"]
    assert [] == [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_refusal_names_the_part(bridge: Bridge, plant: Plant) -> None:
    """A key of another certificate is told with the part that is at fault."""
    parts = plant.parts(plant.device()) | {"private_key": plant.device().key().decode()}
    answer = bridge.client.put("/v1/credentials/x", json=parts).json()
    assert answer["field"] in ("/private_key", "/certificate")
    assert "PRIVATE KEY" not in json.dumps(answer)


def test_a_name_that_is_none(bridge: Bridge, plant: Plant) -> None:
    """Names are DNS labels; one that is none is refused when it is written, and not found when it is read."""
    for name in ("Plant", "a_b", "-a", "a" * 64, "%20"):
        assert (400, "invalid-parameter") == problem(
            bridge, "PUT", f"/v1/credentials/{name}", json=plant.parts()
        )
        assert (404, "no-credential") == problem(bridge, "GET", f"/v1/credentials/{name}")


def test_expired_by_choice(bridge: Bridge, plant: Plant) -> None:
    """What has expired is refused, or taken with a warning, as the caller says."""
    old = plant.device(starts=NOW - timedelta(days=9), ends=NOW - timedelta(days=2))
    parts = plant.parts(old)
    assert (422, "invalid-credential") == problem(bridge, "PUT", "/v1/credentials/old", json=parts)
    taken = bridge.client.put("/v1/credentials/old", params={"expired": "warn"}, json=parts)
    assert 201 == taken.status_code
    assert "expired" in taken.json()["warnings"][0]
    assert -2 >= taken.json()["days_left"]
    assert (400, "invalid-parameter") == problem(
        bridge, "PUT", "/v1/credentials/old", params={"expired": "yes"}, json=parts
    )
    assert (400, "unknown-parameter") == problem(
        bridge, "PUT", "/v1/credentials/old", params={"expire": "warn"}, json=parts
    )


def test_taken_into_use(bridge: Bridge, plant: Plant) -> None:
    """The bridge goes over to it; it is on record with who asked, stays when deleted, and status shows it."""
    for name in ("one", "two"):
        bridge.client.put(f"/v1/credentials/{name}", json=plant.parts(plant.device(f"device-{name}")))
    assert bridge.client.get("/v1/status").json()["tls"]["credential"] is None
    answer = bridge.client.post("/v1/credentials/one/activate")
    assert (200, True) == (answer.status_code, answer.json()["active"]), answer.text
    assert answer.json()["active_revision"] == answer.json()["revision"]
    told = bridge.client.get("/v1/status").json()["tls"]
    assert ("one", "CN=device-one", True) == (
        told["credential"],
        told["certificate"]["subject"],
        told["verified"],
    )

    def days() -> object:
        return bridge.client.get("/v1/status").json()["tls"]["credential_days_left"]

    wait_until(lambda: days() == {"one": 89, "two": 89}, 20)
    assert (409, "credential-active") == problem(bridge, "DELETE", "/v1/credentials/one")
    assert 200 == bridge.client.post("/v1/topics/a", content=b"x").status_code
    assert 200 == bridge.client.post("/v1/credentials/two/activate").status_code
    assert 204 == bridge.client.delete("/v1/credentials/one").status_code
    for name, expected in (("-", ["two", "one"]), ("two", ["two"]), ("three", [])):
        found = bridge.client.get(f"/v1/credentials/{name}/activations").json()["activations"]
        assert expected == [each["name"] for each in found]
        assert all(("active", "", "anonymous") == (e["outcome"], e["reason"], e["by"]) for e in found)
    assert (404, "no-credential") == problem(bridge, "POST", "/v1/credentials/three/activate")


def test_what_the_broker_refuses_is_not_taken_into_use(bridge: Bridge, plant: Plant) -> None:
    """A certificate of another authority: the one before stays, the reason is told and on record."""
    stranger = issue("stranger", issue("Other Root", is_authority=True))
    bridge.client.put("/v1/credentials/wrong", json=plant.parts(stranger))
    answer = bridge.client.post("/v1/credentials/wrong/activate")
    assert (502, "what was in use before stays") == (
        answer.status_code,
        answer.json()["detail"].rpartition("; ")[2],
    )
    words = "CONNECT: client certificate refused: the broker does not know the authority that signed it"
    assert answer.json()["detail"].startswith(words)
    assert "/v1/credentials/wrong/test" in answer.json()["hint"]
    assert 200 == bridge.client.post("/v1/topics/a", content=b"x").status_code
    (failed,) = bridge.client.get("/v1/credentials/wrong/activations").json()["activations"]
    assert "failed" == failed["outcome"]
    assert failed["reason"] in answer.json()["detail"]
    assert "connected" == bridge.client.get("/v1/status").json()["broker"]["state"]


def test_a_new_version_of_what_is_in_use_is_taken_into_use(bridge: Bridge, plant: Plant) -> None:
    """Renewing the credential in use is enough; the old version stays until the new one works."""
    bridge.client.put("/v1/credentials/plant", json=plant.parts(plant.device("device-a")))
    bridge.client.post("/v1/credentials/plant/activate")
    renewed = bridge.client.put("/v1/credentials/plant", json=plant.parts(plant.device("device-b"))).json()

    def subject() -> str:
        return str(bridge.client.get("/v1/status").json()["tls"]["certificate"]["subject"])

    wait_until(lambda: subject() == "CN=device-b", 15)
    shown = bridge.client.get("/v1/credentials/plant").json()
    assert renewed["revision"] == shown["active_revision"]
    stranger = issue("stranger", issue("Other Root", is_authority=True))
    bridge.client.put("/v1/credentials/plant", json=plant.parts(stranger))
    wait_until(lambda: bool(bridge.client.get("/readyz").json()["warnings"]), 15)
    (warning,) = bridge.client.get("/v1/status").json()["tls"]["warnings"]
    assert "credential plant is not in use" in warning
    assert "CN=device-b" == subject()


def test_what_was_in_use_is_in_use_after_a_restart(broker: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """The first connection is made with it already; the files of the settings are not used."""
    key = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    with bridge_with_store(broker.url, plant, tmp_path / "store", key=key) as bridge:
        bridge.client.put("/v1/credentials/plant", json=plant.parts(plant.device("device-kept")))
        assert 200 == bridge.client.post("/v1/credentials/plant/activate").status_code
    with running_bridge(
        broker.url,
        broker_ca_file=plant.files.ca,
        credentials_dir=tmp_path / "store",
        credentials_key=key,
    ) as bridge:
        assert "plant" == bridge.client.get("/v1/status").json()["tls"]["credential"]


def test_replicas_follow_one_another(broker: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """What one bridge takes into use, another on the same store does too."""
    key = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    with (
        bridge_with_store(broker.url, plant, tmp_path / "store", key=key) as one,
        bridge_with_store(broker.url, plant, tmp_path / "store", key=key) as two,
    ):
        one.client.put("/v1/credentials/plant", json=plant.parts(plant.device("device-both")))
        one.client.post("/v1/credentials/plant/activate")
        wait_until(lambda: two.client.get("/v1/status").json()["tls"]["credential"] == "plant", 20)
        assert 1 == len(two.client.get("/v1/credentials/-/activations").json()["activations"])


def test_tried_at_the_configured_broker(bridge: Bridge, plant: Plant) -> None:
    """Every step with its time, and what TLS agreed on; nothing is changed by it."""
    bridge.client.put("/v1/credentials/good", json=plant.parts(plant.device("device-good")))
    bridge.client.put("/v1/credentials/bare", json=plant.parts())
    url = f"mqtts://127.0.0.1:{bridge.app.state.in_use.options.port}"
    for body in (b"", b"{}", json.dumps({"url": url}).encode()):
        answer = bridge.client.post(
            "/v1/credentials/good/test", content=body, headers={"Content-Type": "application/json"}
        )
        found = answer.json()
        assert (200, True, "All is well.") == (answer.status_code, found["ok"], found["verdict"]), found
        assert ["credential", "DNS", "TCP", "TLS", "CONNECT"] == [each["name"] for each in found["steps"]]
        assert "TLSv1.3" == found["steps"][3]["tls"]["version"]
        assert ["CN=broker", "CN=Plant Root"] == [e["subject"] for e in found["steps"][3]["tls"]["chain"]]
    failed = bridge.client.post("/v1/credentials/bare/test").json()
    assert (False, "Failed at: CONNECT.") == (failed["ok"], failed["verdict"])
    assert "client certificate missing" in failed["steps"][-1]["detail"]
    assert bridge.client.get("/v1/status").json()["tls"]["credential"] is None
    assert [] == bridge.client.get("/v1/credentials/-/activations").json()["activations"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"url": "mqtts://elsewhere.example:8883"}, 403, "forbidden-target"),
        ({"url": "mqtts://127.0.0.1:22"}, 403, "forbidden-target"),
        ({"url": "mqtts://[::ffff:127.0.0.1]:22"}, 403, "forbidden-target"),
        ({"url": "mqtts://169.254.169.254"}, 403, "forbidden-target"),
        ({"url": "mqtt://listed.example"}, 422, "invalid-body"),
        ({"url": "wss://listed.example"}, 422, "invalid-body"),
        ({"url": "http://listed.example"}, 422, "invalid-body"),
        ({"url": "gopher://x"}, 422, "invalid-body"),
        ({"uri": "mqtts://x"}, 422, "invalid-body"),
    ],
)
def test_no_other_broker_is_tried(bridge: Bridge, plant: Plant, body: object, status: int, kind: str) -> None:
    """A host that is not listed is refused before its name is looked up."""
    bridge.client.put("/v1/credentials/a", json=plant.parts())
    assert (status, kind) == problem(bridge, "POST", "/v1/credentials/a/test", json=body)


def test_a_listed_broker(broker: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """A name that leads to this machine is tried only where the address is listed too."""
    url = {"url": f"mqtts://localhost:{broker.port}"}
    for hosts, is_ok in ((f"localhost:{broker.port}", False), ("localhost,127.0.0.0/8", True)):
        with bridge_with_store(
            broker.url, plant, tmp_path / hosts[-2:], credentials_test_hosts=hosts
        ) as bridge:
            bridge.client.put("/v1/credentials/a", json=plant.parts(plant.device()))
            found = bridge.client.post("/v1/credentials/a/test", json=url).json()
            assert is_ok is found["ok"], found
            if not is_ok:
                assert (
                    "localhost leads to an address that is not to be tested" == found["steps"][-1]["detail"]
                )


def test_scopes_and_who_asked(broker: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """Reading and writing are scopes of their own, and the record names the principal."""
    with bridge_with_store(
        broker.url, plant, tmp_path / "store", jwt_key=SECRET, jwt_algorithms=("HS256",)
    ) as bridge:

        def call(method: str, path: str, scope: str, **request: object) -> int:
            headers = {"Authorization": f"Bearer {token(scope=scope, sub='alice')}"}
            return bridge.client.request(method, path, headers=headers, **request).status_code  # type: ignore[arg-type]

        reads, writes = "credentials:read", "credentials:write"
        body = {"json": plant.parts(plant.device())}
        assert 401 == bridge.client.get("/v1/credentials").status_code
        assert [403, 201] == [call("PUT", "/v1/credentials/a", each, **body) for each in (reads, writes)]
        assert [200, 403] == [call("GET", "/v1/credentials/a", each) for each in (reads, writes)]
        assert [403, 200] == [call("POST", "/v1/credentials/a/test", each) for each in (reads, writes)]
        assert [403, 200] == [call("POST", "/v1/credentials/a/activate", each) for each in (reads, writes)]
        assert [403, 409] == [call("DELETE", "/v1/credentials/a", each) for each in (reads, writes)]
        headers = {"Authorization": f"Bearer {token(scope=reads)}"}
        answer = bridge.client.get("/v1/credentials/a/activations", headers=headers)
        assert ["alice"] == [each["by"] for each in answer.json()["activations"]]


def test_a_bridge_without_a_store(mosquitto: Mosquitto) -> None:
    """409, and which settings make one."""
    with running_bridge(mosquitto.url) as bridge:
        calls = [
            ("GET", "/v1/credentials"),
            ("GET", "/v1/credentials/a"),
            ("PUT", "/v1/credentials/a"),
            ("DELETE", "/v1/credentials/a"),
            ("POST", "/v1/credentials/a/test"),
            ("POST", "/v1/credentials/a/activate"),
            ("GET", "/v1/credentials/-/activations"),
        ]
        for method, path in calls:
            assert (409, "no-credential-store") == problem(bridge, method, path)
        assert "TIDEGATE_CREDENTIALS_DIR" in bridge.client.get("/v1/credentials").json()["hint"]
        assert bridge.client.get("/v1/status").json()["tls"] is None


def test_a_broker_without_tls_takes_no_credential(mosquitto: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """Told in words; a test says that it has to name a broker."""
    key = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    with running_bridge(mosquitto.url, credentials_dir=tmp_path, credentials_key=key) as bridge:
        bridge.client.put("/v1/credentials/a", json=plant.parts(plant.device()))
        answer = bridge.client.post("/v1/credentials/a/activate")
        assert 502 == answer.status_code
        assert "TIDEGATE_BROKER_URL" in answer.json()["detail"]
        assert (422, "invalid-body") == problem(bridge, "POST", "/v1/credentials/a/test")


def test_a_mounted_secret_without_an_authority(broker: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """The file that the settings name vouches for the broker."""
    parts = plant.parts(plant.device("device-one"))
    del parts["ca"]
    mount(tmp_path, "one", parts)
    with running_bridge(broker.url, credentials_mount=tmp_path, broker_ca_file=plant.files.ca) as bridge:
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)
        told = bridge.client.get("/v1/status").json()["tls"]
        assert "CN=device-one" == told["certificate"]["subject"]


def test_a_mounted_secret(broker: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """It is in use from the start, is renewed by a swap of ..data, and cannot be written over HTTP."""
    mount(tmp_path, "one", plant.parts(plant.device("device-one")))
    with running_bridge(broker.url, credentials_mount=tmp_path) as bridge:

        def subject() -> str:
            return str(bridge.client.get("/v1/status").json()["tls"]["certificate"]["subject"])

        assert "CN=device-one" == subject()
        mount(tmp_path, "two", plant.parts(plant.device("device-two")))
        wait_until(lambda: subject() == "CN=device-two", 20)
        mount(tmp_path, "three", plant.parts(plant.device()) | {"private_key": plant.device().key().decode()})
        wait_until(lambda: bool(bridge.client.get("/readyz").json()["warnings"]), 20)
        assert "CN=device-two" == subject()
        mount(tmp_path, "four", plant.parts(plant.device("device-four")))
        wait_until(lambda: subject() == "CN=device-four", 20)
        wait_until(lambda: not bridge.client.get("/readyz").json()["warnings"], 20)
        (name,) = [each["name"] for each in bridge.client.get("/v1/credentials").json()["credentials"]]
        assert (409, "credentials-read-only") == problem(
            bridge, "PUT", f"/v1/credentials/{name}", json=plant.parts()
        )
        assert (409, "credentials-read-only") == problem(bridge, "DELETE", f"/v1/credentials/{name}")


def mount(path: Path, version: str, parts: dict[str, str]) -> None:
    """Put a version of a Secret in place, as the kubelet does."""
    folder = path / f"..{version}"
    folder.mkdir()
    names = {"ca": "ca.crt", "certificate": "tls.crt", "private_key": "tls.key"}
    for part, text in parts.items():
        (folder / names[part]).write_text(text)
    (path / "..data_tmp").symlink_to(folder.name)
    (path / "..data_tmp").rename(path / "..data")
    for name in names.values():
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"..data/{name}")


def test_no_key_comes_out(
    broker: Mosquitto, plant: Plant, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a key nor a passphrase is in an answer, a log, the store's files, or a repr."""
    device = plant.device("canary")
    passphrase = "canary-passphrase"
    parts = plant.parts(device) | {"private_key": device.key(passphrase=passphrase).decode()}
    secrets = [passphrase, "PRIVATE KEY"]
    for pem in (device.key().decode(), parts["private_key"]):
        secrets += [line for line in pem.splitlines() if len(line) == 64]
    said: list[str] = []
    with (
        caplog.at_level(logging.DEBUG),
        bridge_with_store(broker.url, plant, tmp_path / "store", log_level="debug") as bridge,
    ):
        for method, path, body in (
            ("PUT", "/v1/credentials/canary", parts | {"passphrase": "wrong"}),
            ("PUT", "/v1/credentials/canary", parts | {"passphrase": passphrase}),
            ("PUT", "/v1/credentials/canary", parts | {"passphrase": 7}),
            ("GET", "/v1/credentials/canary", None),
            ("GET", "/v1/credentials", None),
            ("POST", "/v1/credentials/canary/test", None),
            ("POST", "/v1/credentials/canary/activate", None),
            ("GET", "/v1/credentials/-/activations", None),
            ("GET", "/v1/status", None),
            ("GET", "/readyz", None),
        ):
            said.append(bridge.client.request(method, path, json=body).text)
        in_use = bridge.app.state.in_use
        said += [repr(each) for each in (in_use, in_use.credential, in_use.bundle, in_use.options)]
        assert "canary" == in_use.credential.name
    said.append(caplog.text)
    said += [each.read_bytes().decode("latin-1") for each in (tmp_path / "store").iterdir() if each.is_file()]
    for text in said:
        assert [] == [secret for secret in secrets if secret in text]
