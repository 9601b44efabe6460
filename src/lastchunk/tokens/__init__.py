"""Text to counts: vocabularies, prompts as providers render them, running tallies. No I/O."""
