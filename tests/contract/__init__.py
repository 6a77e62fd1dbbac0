"""What the endpoint and the service method promise, held against a whole host."""

import pytest

pytest.register_assert_rewrite("tests.contract.answers", "tests.contract.scenarios")
