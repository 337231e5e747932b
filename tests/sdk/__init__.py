"""The client libraries, against real nodes."""
