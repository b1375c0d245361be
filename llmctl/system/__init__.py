"""The world outside llmctl and the engine's API, one thing per module."""
