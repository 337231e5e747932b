"""How hard the property tests look: `quick` by default, `soak` with CIVICNODE_TEST_PROFILE=soak."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=60, deadline=None, print_blob=True)
settings.register_profile(
    "soak", max_examples=1_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("CIVICNODE_TEST_PROFILE", "quick"))
