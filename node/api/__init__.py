"""The HTTP surfaces and the frame they are mounted in."""
