"""The network way in: an OpenAI-compatible gateway."""
