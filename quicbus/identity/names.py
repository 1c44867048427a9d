"""What a certificate says about its holder: role, name and mesh, and where they stand in it.

`quicbus://<mesh>/<role>/<name>` is a URI SAN of every certificate; only node certificates also carry the DNS SAN
`node.<mesh>.quicbus.internal`, which is the name that dialers ask TLS for.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec
from cryptography import x509

from quicbus.exceptions import InvalidSetting

__all__ = [
    "MAX_NAME_SIZE",
    "Identity",
    "Role",
    "check_name",
    "identity_of",
    "is_mesh_id",
    "is_name",
    "mesh_of",
    "server_name_of",
]

MAX_NAME_SIZE = 64

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MESH = re.compile(r"[0-9a-f]{32}")
_URI = re.compile(r"quicbus://([0-9a-f]{32})/(node|client)/([A-Za-z0-9][A-Za-z0-9._@-]{0,63})")


class Role(StrEnum):
    """What a certificate lets its holder be."""

    NODE = "node"
    CLIENT = "client"


class Identity(msgspec.Struct, frozen=True):
    """What stands in the SANs of one certificate."""

    mesh: str
    role: Role
    name: str

    @property
    def uri(self) -> str:
        return f"quicbus://{self.mesh}/{self.role}/{self.name}"


def check_name(name: str) -> str:
    """Return the name of a node or client as it is; raises `InvalidSetting` where a certificate can't carry it."""
    if not _NAME.fullmatch(name):
        raise InvalidSetting(
            "name",
            f"{name[:80]!r} is not allowed: 1 to {MAX_NAME_SIZE} of A-Z a-z 0-9 . _ @ -, a letter or digit first",
        )
    return name


def is_name(text: str) -> bool:
    """Whether a certificate can carry this name."""
    return _NAME.fullmatch(text) is not None


def is_mesh_id(text: str) -> bool:
    return _MESH.fullmatch(text) is not None


def server_name_of(mesh: str) -> str:
    """Return the DNS name that every node of the mesh, and nobody else, has in its certificate."""
    return f"node.{mesh}.quicbus.internal"


def mesh_of(server_name: str) -> str:
    """Return the mesh that `server_name_of` made the name from; raises `InvalidSetting` where it made none such."""
    mesh = server_name.removeprefix("node.").removesuffix(".quicbus.internal")
    if not is_mesh_id(mesh) or server_name_of(mesh) != server_name:
        raise InvalidSetting("server_name", f"{server_name!r} is not the name of a mesh's nodes")
    return mesh


def identity_of(certificate: x509.Certificate) -> Identity | None:
    """Return who the certificate says it is for, or `None` where it is not exactly what quicbus issues.

    Nothing is verified here but the form: one URI SAN, for nodes also the DNS SAN of the same mesh, and no other SAN.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None:
        return None
    identity = Identity(match[1], Role(match[2]), match[3])
    hosts = [server_name_of(identity.mesh)] if identity.role is Role.NODE else []
    if names.get_values_for_type(x509.DNSName) != hosts or len(names) != 1 + len(hosts):
        return None
    return identity
