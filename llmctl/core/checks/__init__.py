"""What doctor looks for. Each check is a pure function of the facts; nothing here asks the machine."""
