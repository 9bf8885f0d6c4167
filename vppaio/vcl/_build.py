"""Build `vppaio.vcl._vcl`: both providers of the table of operations, and cffi's view of them.

Run by setup.py (`python setup.py build_ext --inplace` in a checkout). cffi parses declarations itself and knows no
preprocessor, so the headers are handed over without their directives: each declaration has one place.
"""

from glob import glob
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "vppaio/vcl"  # relative to ROOT: setuptools refuses absolute paths


def declarations(header: str) -> str:
    """Return the text of `header` without preprocessor lines (ours fit on one line each)."""
    lines = (ROOT / FOLDER / header).read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


ffibuilder = FFI()
for name in ("_cdef.h", "vcl_ops.h", "vcl_states.h", "libvppcom.h"):
    ffibuilder.cdef(declarations(name))
ffibuilder.set_source(
    "vppaio.vcl._vcl",
    """
    /* cffi's generated type checks do this with struct epoll_event, and never use the pointer. */
    #pragma GCC diagnostic ignored "-Waddress-of-packed-member"
    #include "libvppcom.h"
    #include "vcl_states.h"
    const struct vcl_ops *vppaio_host_ops (void);
    """,
    sources=[f"{FOLDER}/{name}" for name in sorted(glob("*.c", root_dir=ROOT / FOLDER))],
    include_dirs=[FOLDER],
    depends=[f"{FOLDER}/{name}" for name in sorted(glob("*.h", root_dir=ROOT / FOLDER))],
    libraries=["dl"],  # dlopen is in libc itself only since glibc 2.34
    # Hidden: the only name to export is the module's init function, which Python.h marks.
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
)
