"""Talking to peers: TLS, links, dialing, discovery, and the sessions on them.

Room: sockets and threads around the machines of `protocol` (handshake, session). What is said to a peer is
decided there, what is kept in `storage`; this package carries, counts, bounds and finds. Composed by `network`,
which is all that the daemon knows of it.
"""
