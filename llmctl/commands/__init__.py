"""Parse, one call, render: one module per family of verbs."""
