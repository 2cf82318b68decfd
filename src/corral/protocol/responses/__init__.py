"""OpenAI's Responses API: wire format <-> nouns. Pure."""
