"""API keys that the database keeps, and the log of what was done with them and with the models."""
