"""The daemon: sockets, threads and the services that connect applications and peers to the record."""
