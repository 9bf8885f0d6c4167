"""The two kinds of extension modules; everything else is in pyproject.toml."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = sorted(glob("vppaio/**/*.pyx", recursive=True))

setup(
    cffi_modules=["vppaio/vcl/_build.py:ffibuilder"],
    ext_modules=cythonize(
        [
            Extension(path.removesuffix(".pyx").replace("/", "."), [path], include_dirs=["vppaio/vcl"])
            for path in MODULES
        ],
        build_dir="build/cython",  # keeps 300 kB of generated C per module out of the source tree and the packages
        # Modules that index nothing but what is theirs do without boundscheck, and say so in their first line.
        compiler_directives={"language_level": 3, "wraparound": False},
    ),
)
