"""Metadata lives in pyproject.toml; this file lets old tools find it, and says how an editable install is made."""

from setuptools import setup

# As a path to this folder, which beats a folder that happens to be called masr (such as a clone) beside a script.
setup(options={"editable_wheel": {"mode": "compat"}})
