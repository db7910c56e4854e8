"""`wattpush check` of the certificate and the password of [serve], and of secrets that others may read."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.check import Status
from agent.check.serve import check_serve
from agent.clock import SystemClock
from agent.errors import ExitCode
from agent.settings import ServeSettings
from tests.run.running import run, write_config
from tests.serve.serving import HOST, write_pair
from tests.servers import write_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import trustme

    from agent.check import Finding

NOW = dt.datetime.fromtimestamp(time.time(), tz=dt.timezone.utc)


def issue(ca: trustme.CA, folder: Path, *, begins: float = -30, ends: float = 100) -> dict[str, str]:
    """A certificate that is valid between these days from now, and its key, which only its owner may read."""
    begin, end = (NOW + dt.timedelta(days=days) for days in (begins, ends))
    keys = write_pair(folder, ca.issue_cert(HOST, not_before=begin, not_after=end))
    Path(keys["key_file"]).chmod(0o600)
    return keys


def found(**keys: str) -> list[Finding]:
    return list(check_serve(ServeSettings(HOST, 9812, **keys), SystemClock(), {}))


def test_nothing_is_said_without_tls_and_password() -> None:
    assert found() == []


def test_a_good_certificate_is_shown_with_its_days(ca: trustme.CA, tmp_path: Path) -> None:
    keys = issue(ca, tmp_path)
    (finding,) = found(**keys)
    assert str(finding) == f"serve certificate: {keys['cert_file']}, for 100 more days"
    assert finding.status is Status.OK


@pytest.mark.parametrize(("ends", "status"), [(13.5, Status.WARNING), (14.5, Status.OK)])
def test_a_certificate_near_its_end_is_a_warning(ca: trustme.CA, tmp_path: Path, ends: float, status: Status) -> None:
    (finding,) = found(**issue(ca, tmp_path, ends=ends))
    assert finding.status is status
    assert ("renew it" in str(finding)) == (status is Status.WARNING)


@pytest.mark.parametrize(
    ("begins", "ends", "words"), [(-30, -1, "certificate has expired"), (1, 30, "certificate is not yet valid")]
)
def test_a_certificate_out_of_its_time_is_a_failure(
    ca: trustme.CA, tmp_path: Path, begins: float, ends: float, words: str
) -> None:
    (finding,) = found(**issue(ca, tmp_path, begins=begins, ends=ends))
    assert (finding.status, finding.exit_code) == (Status.FAILED, ExitCode.CONFIG)
    assert f"{words}; renew it, or set this machine's clock" in str(finding)


Key: TypeAlias = "ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey"


def self_signed(folder: Path, *usages: x509.ObjectIdentifier, key: Key | None = None) -> dict[str, str]:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node-17")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW - dt.timedelta(days=1)).not_valid_after(NOW + dt.timedelta(days=50))
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return write_pair_of(folder, builder.sign(key, hashes.SHA256()), key)


def write_pair_of(folder: Path, certificate: x509.Certificate, key: Key) -> dict[str, str]:
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    keys = {
        "cert_file": write_file(folder / "cert.pem", certificate.public_bytes(Encoding.PEM)),
        "key_file": write_file(folder / "key.pem", written),
    }
    (folder / "key.pem").chmod(0o600)
    return keys


def test_a_self_signed_certificate_is_as_good(tmp_path: Path) -> None:
    (finding,) = found(**self_signed(tmp_path))
    assert finding.status is Status.OK
    assert "for 50 more days" in str(finding)


def test_a_certificate_for_clients_only_is_a_failure(tmp_path: Path) -> None:
    (finding,) = found(**self_signed(tmp_path, ExtendedKeyUsageOID.CLIENT_AUTH))
    assert finding.status is Status.FAILED
    assert "purpose; clients need one for a server" in str(finding)


def test_a_key_that_no_client_can_use_is_a_failure(tmp_path: Path) -> None:
    (finding,) = found(**self_signed(tmp_path, key=ec.generate_private_key(ec.SECP256K1())))
    assert (finding.status, finding.exit_code) == (Status.FAILED, ExitCode.CONFIG)
    assert "a client cannot connect: no shared cipher; create one with an RSA key" in str(finding)


def test_a_short_key_is_called_short(tmp_path: Path) -> None:
    (finding,) = found(**self_signed(tmp_path, key=rsa.generate_private_key(65537, 1024)))
    assert finding.status is Status.FAILED
    assert "ee key too small for OpenSSL; create one with a stronger key" in str(finding)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("damage", "status", "words"),
    [
        (lambda folder: (folder / "cert.pem").unlink(), Status.WARNING, "serve.cert_file: cannot read"),
        (lambda folder: (folder / "key.pem").unlink(), Status.WARNING, "serve.key_file: cannot read"),
        (lambda folder: (folder / "cert.pem").write_text("x"), Status.FAILED, "are not a certificate and its own"),
        (lambda folder: pipe(folder / "key.pem"), Status.FAILED, "key.pem is not a regular file; name one"),
    ],
    ids=["no certificate", "no key", "nonsense", "pipe"],
)
def test_files_that_do_not_work_are_found(
    ca: trustme.CA, tmp_path: Path, damage: Callable[[Path], None], status: Status, words: str
) -> None:
    keys = issue(ca, tmp_path)
    damage(tmp_path)
    (finding,) = found(**keys)
    assert finding.status is status
    assert words in str(finding)


@pytest.mark.parametrize(
    ("content", "mode", "status", "words"),
    [
        ("secret", 0o640, Status.OK, "serve password: that of node, from "),
        ("secret", 0o644, Status.WARNING, "its mode lets every user of this machine read it; sudo chmod o= "),
        ("", 0o600, Status.FAILED, "is empty; write the secret into it"),
        (None, 0, Status.WARNING, "serve.password_file: cannot read"),
    ],
    ids=["good", "open to all", "empty", "missing"],
)
def test_the_password_is_checked(tmp_path: Path, content: str | None, mode: int, status: Status, words: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    (finding,) = found(username="node", password_file=str(file))
    assert finding.status is status
    assert words in str(finding)


def test_a_key_that_others_may_read_is_a_warning(ca: trustme.CA, tmp_path: Path) -> None:
    keys = issue(ca, tmp_path)
    Path(keys["key_file"]).chmod(0o644)
    _, finding = found(**keys)
    assert finding.status is Status.WARNING
    assert str(finding).endswith(f"sudo chmod o= {keys['key_file']}")


def test_the_command_warns_of_every_secret_that_others_may_read(ca: trustme.CA, tmp_path: Path) -> None:
    """The password of each destination, and the keys of client certificates."""
    folders = {table: tmp_path / table for table in ("pushgateway", "remote_write", "serve")}
    keys = {}
    for table, folder in folders.items():
        folder.mkdir()
        issued = {**issue(ca, folder), "password_file": write_file(folder / "password", "s3cret")}
        for name in ("key.pem", "password"):
            (folder / name).chmod(0o604)
        keys[table] = "\n".join(f'{key} = "{file}"' for key, file in issued.items()) + '\nusername = "node"\n'
    more = f'[remote_write]\nurl = "https://gateway.invalid/api/v1/write"\n{keys["remote_write"]}'
    more += f'[serve]\nlisten = ":9812"\n{keys["serve"]}'
    config = write_config(tmp_path, "https://gateway.invalid", push=f'timeout = "1s"\n{keys["pushgateway"]}', more=more)
    for options in ([], ["--gateway"]):
        ended = run("check", "--config", config, *options)
        told = [line.split("sudo chmod o= ")[-1] for line in ended.stdout.splitlines() if "sudo chmod o= " in line]
        assert sorted(told) == sorted(
            str(folder / name) for folder in folders.values() for name in ("key.pem", "password")
        )
        assert "s3cret" not in ended.stdout + ended.stderr
    for folder in folders.values():
        for name in ("key.pem", "password"):
            (folder / name).chmod(0o600)
    assert "chmod" not in run("check", "--config", config).stdout
