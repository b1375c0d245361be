"""What a model needs, computed from its header: gguf reads the header."""
