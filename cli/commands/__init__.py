"""One module a command (or a few that belong together); each imports only click before it runs."""
