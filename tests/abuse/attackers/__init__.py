"""All attacks, by name."""

from tests.abuse.attackers import batches, datagrams, handshakes, impostors, joining, streams, subscriptions
from tests.abuse.attackers.attack import Attack

__all__ = ["ATTACKS", "Attack"]

MODULES = (datagrams, handshakes, joining, streams, batches, subscriptions, impostors)
ATTACKS = {attack.name: attack for module in MODULES for attack in module.ATTACKS}
