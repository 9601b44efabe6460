"""The provider's language: bytes to events, request bodies to facts. No I/O."""
