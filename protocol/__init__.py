"""What every node decides alike: commits, documents, models, membership. No I/O of any kind."""
