"""Authority, certificates, credentials and proof of possession."""

from quicbus.identity.authority import Authority
from quicbus.identity.credential import Credential
from quicbus.identity.keys import mesh_id_of, node_id_of
from quicbus.identity.names import Role, server_name_of
from quicbus.identity.peer import Peer, ProofRefused, check_listener_certificate
from quicbus.identity.proof import Verifier, sign_proof

__all__ = [
    "Authority",
    "Credential",
    "Peer",
    "ProofRefused",
    "Role",
    "Verifier",
    "check_listener_certificate",
    "mesh_id_of",
    "node_id_of",
    "server_name_of",
    "sign_proof",
]
