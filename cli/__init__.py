"""The `civicnode` command."""
