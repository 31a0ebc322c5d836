"""What pyproject.toml cannot express: the wheel contains the scripts of examples/, which `uov-hf train` runs."""

from setuptools import find_packages, setup


SCRIPTS = "uov_hf.recipe.scripts"

setup(
    packages=[*find_packages(include=["uov_hf*"]), SCRIPTS],
    package_dir={SCRIPTS: "examples"},
)
