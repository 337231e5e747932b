"""What a node keeps: the LMDB record and the SQLite index, behind classes that speak of commits and documents."""
