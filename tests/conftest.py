"""Settings of the whole test suite."""

import os

from hypothesis import settings

# No deadline: how long an example takes is no property of the code. HYPOTHESIS_PROFILE=quick tries
# a tenth of the examples, for `make test-fast`.
settings.register_profile("full", deadline=None, print_blob=True, max_examples=100)
settings.register_profile("quick", deadline=None, print_blob=True, max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))
