"""Anthropic's Messages API: wire format <-> nouns. Pure."""
