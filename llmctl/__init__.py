"""llmctl operates one local LLM server: pinned, resident on the GPU, proved."""

__version__ = "0.1.0"
