"""Ollama's native API: wire format <-> nouns. Pure."""
