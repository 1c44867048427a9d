"""The mesh: members, links, health, broadcast and interest as pure state machines, and one driver with the I/O."""
