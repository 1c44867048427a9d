"""All attacks, by name."""

from tests.abuse.attackers import batches, datagrams, handshakes, impostors, streams, subscriptions
from tests.abuse.attackers.attack import Attack

__all__ = ["ATTACKS", "Attack"]

MODULES = (datagrams, handshakes, streams, batches, subscriptions, impostors)
ATTACKS = {attack.name: attack for module in MODULES for attack in module.ATTACKS}
