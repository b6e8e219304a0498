"""The package is found whatever lies beside a user's script."""

import os
import subprocess
import sys


def test_a_folder_named_masr_beside_a_script_hides_nothing(tmp_path):
    """Such as a clone: Python would take it for a package without a file of its own."""
    (tmp_path / "masr/masr").mkdir(parents=True)
    script = tmp_path / "use.py"
    script.write_text("import masr\nprint(masr.load.__module__)\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "masr\n"), result.stderr


def test_the_version_is_that_of_the_package():
    result = subprocess.run([sys.executable, "-m", "masr.cli", "--version"], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("masr 0."), result.stderr
