"""Who is trusted, as far as the mesh goes: how the trust list gets to every node, and what becomes of revoked ones."""
