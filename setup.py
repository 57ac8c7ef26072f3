"""Which packages are installed: those found here, and conf/ as tprnn.conf."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["tprnn", "tprnn.*"]),
        *find_namespace_packages(include=["hydra_plugins", "hydra_plugins.*"], exclude=["*__pycache__*"]),
        "tprnn.conf",
    ],
    package_dir={"tprnn.conf": "conf"},
)
