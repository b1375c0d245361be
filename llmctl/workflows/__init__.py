"""What composes services. Each workflow takes services and a progress callback."""
