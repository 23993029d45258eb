"""Reads everything from settings.ini, the one place of configuration for the package."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(HERE / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    license="Apache-2.0",
    keywords=settings["keywords"].split(),
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12)),
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    python_requires=f">={settings['min_python']}",
    packages=["cvqvae", "cvqvae.analyses"],
    package_dir={"cvqvae.analyses": "nbs/analyses"},
    package_data={"cvqvae": ["explorer.html", "py.typed", "*.pyi"], "cvqvae.analyses": ["*.ipynb"]},
    install_requires=settings["requirements"].split(),
    extras_require={extra: settings[f"{extra}_requirements"].split() for extra in ("dev", "peers", "scale", "dask")},
    entry_points={"console_scripts": settings["console_scripts"].split()},
    zip_safe=False,
)
