"""Settings of the whole test suite."""

import atexit
import gc
import os
import shutil
import sys
from tempfile import mkdtemp

from hypothesis import settings

# No deadline: how long an example takes is no property of the code. HYPOTHESIS_PROFILE=quick tries
# a tenth of the examples, for `make test-fast`.
settings.register_profile("full", deadline=None, print_blob=True, max_examples=100)
settings.register_profile("quick", deadline=None, print_blob=True, max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))

# modules are not garbage: no collection looks at them, neither while they are imported nor later
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    if stage := sys.modules.get("tests.console.browser"):
        stage.shared_browser.close()


# servers that tests start keep their accounts here, not with those of this machine's user
os.environ["XDG_STATE_HOME"] = mkdtemp(prefix="vivavoce-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
