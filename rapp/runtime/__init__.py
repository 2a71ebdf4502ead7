"""Running a network under a resource configuration.

The only package that imports onnxruntime, and it does so when a function is called: importing
`rapp.runtime` needs nothing but Python.
"""

from __future__ import annotations

from rapp.runtime.session import cpu_session, import_onnxruntime

__all__ = ["cpu_session", "import_onnxruntime"]
