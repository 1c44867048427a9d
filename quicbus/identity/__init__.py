"""Authority, certificates, credentials, proof of possession, and the data folder that holds them."""

from quicbus.identity.authority import Authority
from quicbus.identity.binding import CHANNEL_BINDING_SIZE, ChannelBindingSink
from quicbus.identity.credential import Credential
from quicbus.identity.data_folder import DataFolder, load_authority, prepare_node_folder
from quicbus.identity.describe import CertificateDescription, describe_certificate
from quicbus.identity.keys import mesh_id_of, node_id_of
from quicbus.identity.names import Role, mesh_of, server_name_of
from quicbus.identity.peer import Peer, ProofRefused, check_listener_certificate
from quicbus.identity.proof import Verifier, sign_proof
from quicbus.identity.signatures import SignatureContext, is_signed_by, sign

__all__ = [
    "CHANNEL_BINDING_SIZE",
    "Authority",
    "CertificateDescription",
    "ChannelBindingSink",
    "Credential",
    "DataFolder",
    "Peer",
    "ProofRefused",
    "Role",
    "SignatureContext",
    "Verifier",
    "check_listener_certificate",
    "describe_certificate",
    "is_signed_by",
    "load_authority",
    "mesh_id_of",
    "mesh_of",
    "node_id_of",
    "prepare_node_folder",
    "server_name_of",
    "sign",
    "sign_proof",
]
