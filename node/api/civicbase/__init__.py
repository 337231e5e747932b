"""Surface S1, CivicBase: `/v1/…`."""
