"""The cluster's certificate authorities and everything they sign, written once per instance."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tidegate_e2e.localcluster.plan import Plan

_VALID = dt.timedelta(days=3650)  # as long as a machine may stay up: a reboot makes new ones
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate speaks for: Kubernetes reads the user from CN, the group from O."""

    file: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()


def subjects(plan: Plan) -> tuple[Subject, ...]:
    """Return every certificate that the cluster's own authority signs."""
    server_names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        "127.0.0.1",
        plan.node_ip,
        plan.service_ip,
    )
    return (
        Subject("apiserver", "kube-apiserver", names=server_names),
        Subject("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
        Subject("admin", "admin", "system:masters"),
        Subject("controller-manager", "system:kube-controller-manager"),
        Subject("scheduler", "system:kube-scheduler"),
        Subject("proxy", "system:kube-proxy"),
        Subject("kubelet", f"system:node:{plan.node}", "system:nodes", (plan.node, plan.node_ip)),
    )


def write_all(plan: Plan) -> Path:
    """Write the authorities, keys and certificates; return their folder."""
    folder = plan.state / "pki"
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    authority = _authority(folder / "ca", "tidegate-local")
    for subject in subjects(plan):
        _sign(folder / subject.file, subject, authority)
    front = _authority(folder / "front-proxy-ca", "tidegate-front-proxy")
    _sign(folder / "front-proxy", Subject("front-proxy", "front-proxy-client"), front)
    _write_key(folder / "service-account", ec.generate_private_key(ec.SECP256R1()))
    (folder / "complete").touch()
    return folder


def _authority(path: Path, common_name: str) -> tuple[Key, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(path, key, certificate)
    return key, certificate


def _sign(path: Path, subject: Subject, authority: tuple[Key, x509.Certificate]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject.user)]
    if subject.group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.group))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = _builder(x509.Name(attributes), authority[1].subject, key).add_extension(
        x509.ExtendedKeyUsage(usages), critical=False
    )
    if subject.names:
        names = x509.SubjectAlternativeName([_general_name(name) for name in subject.names])
        builder = builder.add_extension(names, critical=False)
    _write(path, key, builder.sign(authority[0], hashes.SHA256()))


def _builder(subject: x509.Name, issuer: x509.Name, key: Key) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, key: Key, certificate: x509.Certificate) -> None:
    _write_key(path, key)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path.with_suffix(".crt").write_bytes(pem)


def _write_key(path: Path, key: Key) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    target = path.with_suffix(".key")
    target.touch(mode=0o600)
    target.write_bytes(pem)
