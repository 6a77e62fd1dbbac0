"""The contract of the endpoint and the service method, tested on a whole host."""

import pytest

pytest.register_assert_rewrite("tests.contract.answers", "tests.contract.scenarios")
