"""Authority, certificates, credentials, join tokens, the trust list, proofs, and the data folder that holds them."""

from quicbus.identity.authority import Authority
from quicbus.identity.binding import CHANNEL_BINDING_SIZE, ChannelBindingSink
from quicbus.identity.credential import Credential
from quicbus.identity.data_folder import Changes, DataFolder, load_authority, prepare_node_folder
from quicbus.identity.describe import CertificateDescription, describe_certificate
from quicbus.identity.issued_log import IssuedCertificate, IssuedLog
from quicbus.identity.issuing import Issued, Issuer, IssueRequest
from quicbus.identity.keys import mesh_id_of, node_id_of
from quicbus.identity.names import Role, mesh_of, server_name_of
from quicbus.identity.peer import Peer, ProofRefused, check_listener_certificate
from quicbus.identity.prepared_folder import PreparedFolder
from quicbus.identity.proof import Verifier, sign_proof
from quicbus.identity.requests import make_request, request_key
from quicbus.identity.signatures import SignatureContext, is_signed_by, sign
from quicbus.identity.token_store import StoredToken, TokenStore
from quicbus.identity.tokens import JoinToken
from quicbus.identity.trust import Revocation, TrustList, TrustStore

__all__ = [
    "CHANNEL_BINDING_SIZE",
    "Authority",
    "CertificateDescription",
    "Changes",
    "ChannelBindingSink",
    "Credential",
    "DataFolder",
    "IssueRequest",
    "Issued",
    "IssuedCertificate",
    "IssuedLog",
    "Issuer",
    "JoinToken",
    "Peer",
    "PreparedFolder",
    "ProofRefused",
    "Revocation",
    "Role",
    "SignatureContext",
    "StoredToken",
    "TokenStore",
    "TrustList",
    "TrustStore",
    "Verifier",
    "check_listener_certificate",
    "describe_certificate",
    "is_signed_by",
    "load_authority",
    "make_request",
    "mesh_id_of",
    "mesh_of",
    "node_id_of",
    "prepare_node_folder",
    "request_key",
    "server_name_of",
    "sign",
    "sign_proof",
]
