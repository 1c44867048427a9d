"""The join tokens of a mesh, in the folder with the authority's key: made, listed, revoked and redeemed.

Only public keys are kept. Every change is made under a lock and written whole, so that of two processes that redeem a
token with one use at once one does.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import msgspec

from quicbus import limits
from quicbus.exceptions import DataFolderError, InvalidSetting
from quicbus.identity.authority import CERTIFICATE_DAYS, check_days
from quicbus.identity.folder_files import TOKENS_FILE, exists, one_error, write
from quicbus.identity.folder_lock import brief_lock
from quicbus.identity.keys import node_id_of
from quicbus.identity.names import MAX_NAME_SIZE, Role, check_name
from quicbus.identity.peer import ProofRefused
from quicbus.identity.requests import request_key
from quicbus.identity.tokens import JoinToken, is_signed_by_token
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["StoredToken", "TokenStore"]

MAX_TTL_S = 365 * 86_400.0
KEEP_DAYS = 7
"""A token is listed for so long after its end, so that a late holder is told that it has expired, not that it never
was."""
_ANOTHER = "ask for another one, made with `quicbus token create`"


class StoredToken(msgspec.Struct, frozen=True, kw_only=True):
    """What the authority knows of a token. It can't be redeemed with that."""

    id: str
    """16 hex digits."""
    public_key: bytes
    role: Role
    name: str
    """Empty: a name is made."""
    days: Annotated[float, msgspec.Meta(gt=0)] = CERTIFICATE_DAYS
    """What is issued lives for so long."""
    uses: Annotated[int, msgspec.Meta(ge=1)]
    created_at: int
    """Seconds since 1970, as are the others."""
    expires_at: int
    revoked_at: int | None = None
    used_by: dict[str, str] = {}
    """Key ids in hex and the name that each got, in that order."""

    @property
    def uses_left(self) -> int:
        return max(0, self.uses - len(self.used_by))

    def state(self, now: dt.datetime) -> str:
        """Return `valid`, `revoked`, `expired` or `used up`."""
        if self.revoked_at is not None:
            return "revoked"
        if now.timestamp() > self.expires_at:
            return "expired"
        return "valid" if self.uses_left else "used up"


class _Stored(msgspec.Struct, frozen=True):
    tokens: tuple[StoredToken, ...]


_decoder = msgspec.json.Decoder(_Stored)


class TokenStore:
    """Reads the file at each call, and blocks for it: brokers call it in a thread. Costs nothing to make.

    All methods raise `DataFolderError` where the file can't be read, written or locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(
        self,
        *,
        mesh: str,
        seeds: Sequence[str],
        authorities: Sequence[bytes],
        role: Role,
        name: str = "",
        uses: int = 1,
        ttl_s: float = 3600.0,
        days: float = CERTIFICATE_DAYS,
        now: dt.datetime | None = None,
    ) -> JoinToken:
        """Make and keep a token; raises `InvalidSetting`. It is shown once: what is kept can't tell it again."""
        now = now or dt.datetime.now(dt.UTC)
        _check(seeds, name, uses, ttl_s)
        check_days(days)
        token = JoinToken.make(mesh, seeds, authorities, role, name, now + dt.timedelta(seconds=ttl_s))
        stored = StoredToken(
            id=token.id.hex(),
            public_key=token.public_key,
            role=role,
            name=name,
            days=days,
            uses=uses,
            created_at=int(now.timestamp()),
            expires_at=int(token.expires_at.timestamp()),
        )
        with one_error(self.folder), brief_lock(self.folder):
            tokens = [one for one in self._read() if not _is_past(one, now)]
            if len(tokens) >= limits.MAX_JOIN_TOKENS:
                raise InvalidSetting(
                    "tokens",
                    f"{limits.MAX_JOIN_TOKENS} are kept, and no more; they go {KEEP_DAYS} days after they expire",
                )
            self._write([*tokens, stored])
        return token

    def list(self) -> tuple[StoredToken, ...]:
        """Return all that are kept, the oldest first."""
        with one_error(self.folder):
            return self._read()

    def revoke(self, which: str, now: dt.datetime | None = None) -> tuple[StoredToken, ...]:
        """Revoke the token with this id, or the beginning of one, or else all for this name that are still valid.

        Returns those that were revoked now. What they were used for stays valid: see `quicbus cert revoke`.
        """
        now = now or dt.datetime.now(dt.UTC)
        with one_error(self.folder), brief_lock(self.folder):
            tokens = self._read()
            found = [one for one in tokens if which and one.name == which]
            found = found or [one for one in tokens if len(which) >= 4 and one.id.startswith(which.lower())]
            ids = {one.id for one in found if one.state(now) == "valid"}
            stamp = int(now.timestamp())
            changed = [msgspec.structs.replace(one, revoked_at=stamp) if one.id in ids else one for one in tokens]
            if ids:
                self._write(changed)
        return tuple(one for one in changed if one.id in ids)

    def redeem(
        self, token_id: bytes, csr: bytes, signature: bytes, now: dt.datetime, *, mesh: str, local_csr: bytes = b""
    ) -> tuple[StoredToken, str]:
        """Use the token up once for the key of `csr`; returns it and the name for the key.

        Raises `ProofRefused` with TOKEN_REFUSED. A key that has used the token before gets the same name again and
        uses up nothing: an answer may have been lost on its way.
        Raises `CredentialError` for an unreadable request.
        """
        key_id = node_id_of(request_key(csr)).hex()
        with one_error(self.folder):
            # Strangers must not hold the lock: who it is for is checked first.
            self._check_signed(self._find(self._read(), token_id), mesh, csr, local_csr, signature)
            with brief_lock(self.folder):
                tokens = self._read()
                stored = self._find(tokens, token_id)
                self._check_signed(stored, mesh, csr, local_csr, signature)
                if (name := stored.used_by.get(key_id)) and stored.state(now) in ("valid", "used up"):
                    return stored, name
                _check_state(stored, now)
                name = _name_for(stored, key_id)
                used = msgspec.structs.replace(stored, used_by={**stored.used_by, key_id: name})
                self._write([used if one.id == used.id else one for one in tokens if not _is_past(one, now)])
                return used, name

    def _find(self, tokens: Sequence[StoredToken], token_id: bytes) -> StoredToken:
        for one in tokens:
            if one.id == token_id.hex():
                return one
        raise ProofRefused(CloseCode.TOKEN_REFUSED, f"this mesh knows no such join token; {_ANOTHER}")

    def _check_signed(self, stored: StoredToken, mesh: str, csr: bytes, local_csr: bytes, signature: bytes) -> None:
        if not is_signed_by_token(stored.public_key, signature, mesh, bytes.fromhex(stored.id), csr, local_csr):
            raise ProofRefused(CloseCode.TOKEN_REFUSED, f"the request is not signed by its join token; {_ANOTHER}")

    def _read(self) -> tuple[StoredToken, ...]:
        path = self.folder / TOKENS_FILE
        if not exists(path):
            return ()
        try:
            return _decoder.decode(path.read_bytes()).tokens
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataFolderError(
                str(self.folder), f"{TOKENS_FILE} is damaged ({error}); remove it and make new tokens"
            ) from None

    def _write(self, tokens: Sequence[StoredToken]) -> None:
        write(self.folder, TOKENS_FILE, msgspec.json.format(msgspec.json.encode(_Stored(tuple(tokens)))))


def _check(seeds: Sequence[str], name: str, uses: int, ttl_s: float) -> None:
    if not 0 < len(seeds) <= limits.MAX_SEEDS_OF_TOKEN:
        raise InvalidSetting("seed", f"{len(seeds)} are not allowed: 1 to {limits.MAX_SEEDS_OF_TOKEN}, each HOST:PORT")
    if not 1 <= uses <= limits.MAX_USES_OF_TOKEN:
        raise InvalidSetting("uses", f"{uses} is not allowed: 1 to {limits.MAX_USES_OF_TOKEN}")
    if not 0 < ttl_s <= MAX_TTL_S:
        raise InvalidSetting("ttl", f"{ttl_s:g} s is not allowed: more than 0, at most 365 days")
    if name:
        check_name(name)
        if uses > 1 and len(name) + 1 + len(str(uses)) > MAX_NAME_SIZE:
            raise InvalidSetting("name", f"{name!r} is too long for {uses} uses: each adds a number to it")


def _check_state(stored: StoredToken, now: dt.datetime) -> None:
    if stored.revoked_at is not None:
        when = dt.datetime.fromtimestamp(stored.revoked_at, dt.UTC)
        raise ProofRefused(
            CloseCode.TOKEN_REFUSED, f"the join token was revoked on {when:%Y-%m-%d %H:%M} UTC; {_ANOTHER}"
        )
    if now.timestamp() > stored.expires_at:
        when = dt.datetime.fromtimestamp(stored.expires_at, dt.UTC)
        raise ProofRefused(CloseCode.TOKEN_REFUSED, f"the join token expired on {when:%Y-%m-%d %H:%M} UTC; {_ANOTHER}")
    if not stored.uses_left:
        times = "once" if stored.uses == 1 else f"{stored.uses} times"
        raise ProofRefused(
            CloseCode.TOKEN_REFUSED, f"the join token was good for joining {times} and is used up; {_ANOTHER}"
        )


def _name_for(stored: StoredToken, key_id: str) -> str:
    if not stored.name:
        return f"{stored.role}-{key_id[:8]}"
    return stored.name if stored.uses == 1 else f"{stored.name}-{len(stored.used_by) + 1}"


def _is_past(stored: StoredToken, now: dt.datetime) -> bool:
    return now.timestamp() > stored.expires_at + KEEP_DAYS * 86_400
