"""A tiny project with a build of its own, for tests of rebuilding."""

import os
import subprocess
from pathlib import Path

BACKEND = """
import os, time, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as file:
        for path, text in (
            ("tiny.py", open("tiny.py").read() + {extra}),
            ("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n"),
            ("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n"),
            ("tiny-1.0.dist-info/RECORD", ""),
        ):
            file.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return name
"""
PROJECT = (
    '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "tiny"\nversion = "1.0"\n'
)


def committed(root: Path, extra: str) -> Path:
    """Return a repository of a tiny project whose build adds something."""
    root.mkdir()
    (root / "tiny.py").write_text("x = 1\n")
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "backend.py").write_text(BACKEND.replace("{extra}", extra))
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
    name = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "x")):
        subprocess.run(["git", "-C", str(root), *name, *words], check=True, env=env)
    return root
