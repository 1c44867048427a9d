"""Whom to be linked to, whom to dial, and when to try again."""
