"""What the tests of storage share."""

import pytest

pytest.register_assert_rewrite("tests.storage.contract")
