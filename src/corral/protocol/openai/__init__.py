"""OpenAI's chat and text completions, embeddings, batches, models: wire format <-> nouns. Pure."""
