"""The graphs of the architectures. docs/architectures.md says how to add one."""
