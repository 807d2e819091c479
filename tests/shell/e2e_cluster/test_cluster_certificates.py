"""Certificates on disk: signed by the right authority, kept, and private."""

import pytest
from cryptography import x509

from tidegate_e2e.localcluster import certificates
from tidegate_e2e.localcluster.plan import plan


@pytest.fixture
def pki(tmp_path):
    return certificates.write_all(plan("test", tmp_path))


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize(
    ("file", "authority"),
    [
        *((s.file, "ca") for s in certificates.subjects(plan("test"))),
        ("front-proxy", "front-proxy-ca"),
    ],
)
def test_a_certificate_is_signed_by_its_authority(pki, file, authority):
    load(pki / f"{file}.crt").verify_directly_issued_by(load(pki / f"{authority}.crt"))


def test_addresses_are_written_as_addresses(pki):
    names = load(pki / "apiserver.crt").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    addresses = {str(address) for address in names.value.get_values_for_type(x509.IPAddress)}
    assert {plan("test").node_ip, plan("test").service_ip} <= addresses
    assert "localhost" in names.value.get_values_for_type(x509.DNSName)


def test_keys_are_the_owners_alone(pki):
    assert {path.stat().st_mode & 0o077 for path in pki.glob("*.key")} == {0}


def test_a_second_call_changes_nothing_and_an_interrupted_one_starts_afresh(pki, tmp_path):
    before = (pki / "ca.crt").read_bytes()
    certificates.write_all(plan("test", tmp_path))
    assert (pki / "ca.crt").read_bytes() == before
    (pki / "complete").unlink()
    certificates.write_all(plan("test", tmp_path))
    assert (pki / "ca.crt").read_bytes() != before
    load(pki / "admin.crt").verify_directly_issued_by(load(pki / "ca.crt"))
