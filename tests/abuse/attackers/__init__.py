"""All attacks, by name."""

from tests.abuse.attackers import datagrams, handshakes
from tests.abuse.attackers.attack import Attack

__all__ = ["ATTACKS", "Attack"]

ATTACKS = {attack.name: attack for module in (datagrams, handshakes) for attack in module.ATTACKS}
