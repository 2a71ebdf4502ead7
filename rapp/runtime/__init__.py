"""Running a network under a resource configuration.

The only package that imports onnxruntime, and it does so when a function is called: importing
`rapp.runtime` needs nothing but Python.
"""

from __future__ import annotations

from rapp.runtime.gate import GateClosedError, QuotaGate
from rapp.runtime.quota import QuotaBlock, QuotaStatistics
from rapp.runtime.quota_layout import BlockFault, QuotaBlockError, QuotaMode
from rapp.runtime.session import cpu_session, import_onnxruntime

__all__ = [
    "BlockFault",
    "GateClosedError",
    "QuotaBlock",
    "QuotaBlockError",
    "QuotaGate",
    "QuotaMode",
    "QuotaStatistics",
    "cpu_session",
    "import_onnxruntime",
]
