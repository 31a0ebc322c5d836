"""Run the test mixins of the installed transformers version on the classes of this package.

    python tests/external/run_transformers_mixins.py [--sdist transformers-5.23.0.tar.gz] [pytest options]

The mixins are in the source distribution of transformers, not in its wheel. They are unpacked into a temporary folder
and never enter this repository. The cases are in `mixin_cases.py`; what does not apply is in `inapplicable_tests.py`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import transformers


HERE = Path(__file__).resolve().parent
# The source distribution lacks these files, which the mixins import. No test that is run needs what they define.
MISSING_FILES = {
    "pytest.ini": "[pytest]\n",  # that of this repository knows no markers of transformers
    "tests/__init__.py": "",
    "tests/exporters/__init__.py": "",
    "tests/exporters/test_export.py": "class ExportTesterMixin: ...\n",
    "tests/generation/__init__.py": "",
    "tests/generation/test_utils.py": "class GenerationTesterMixin: ...\n",
    "tests/utils/__init__.py": "",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sdist", type=Path, help="the source distribution; by default pip downloads it")
    arguments, pytest_options = parser.parse_known_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        unpack(arguments.sdist or download(folder), folder)
        if importlib.util.find_spec("parameterized") is None:  # the mixins need it
            pip("install", "--target", folder, "parameterized")
        command = [sys.executable, "-m", "pytest", "-c", folder / "pytest.ini", "--confcutdir", HERE]
        # The mixins warn of what transformers itself will change.
        command += ["--disable-warnings", HERE / "mixin_cases.py", *pytest_options]
        settings = {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.run(list(map(str, command)), env=os.environ | settings).returncode


def download(folder: Path) -> Path:
    pip("download", "--no-deps", "--no-binary", ":all:", "--dest", folder, f"transformers=={transformers.__version__}")
    return next(folder.glob("transformers-*.tar.gz"))


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def unpack(sdist: Path, folder: Path) -> None:
    """Put the mixins into `folder / "tests"`, and beside them stand-ins for the files that they import."""
    for name, text in MISSING_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            if Path(member.name).parts[1:2] == ("tests",) and member.name.endswith("_common.py"):
                (folder / "tests" / Path(member.name).name).write_bytes(archive.extractfile(member).read())


if __name__ == "__main__":
    sys.exit(main())
