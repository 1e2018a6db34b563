"""`seewhy.capture` is a function and `seewhy/capture/` a package: both can be reached, whichever came first."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "imports",
    [
        "import seewhy; seewhy.capture; import seewhy.capture.tape",
        "import seewhy.capture.tape; import seewhy",
        "from seewhy.capture.hooks import edit; import seewhy; import seewhy.features, seewhy.summary",
        "import seewhy; seewhy.explain; seewhy.features; seewhy.summary",
        "from seewhy import capture, features, summary; import seewhy",
    ],
)
def test_functions_are_not_hidden_by_the_modules_of_the_same_name(imports: str) -> None:
    code = f"""{imports}
from seewhy.capture.tape import record
from seewhy.capture import hooks
assert seewhy.capture is hooks.capture and seewhy.edit is hooks.edit, seewhy.capture
assert [f.__name__ for f in (seewhy.features, seewhy.summary, seewhy.clip)] == ["features", "summary", "clip"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
