"""Text as markup: what stands in a record or a ledger can never become a tag, an attribute or a broken document.

Example::

    >>> clean('<b title="x">Ada & Bo</b>')
    '&lt;b title=&quot;x&quot;&gt;Ada &amp; Bo&lt;/b&gt;'
"""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape

__all__ = ["clean"]

# XML 1.0 §2.2: what no document may hold, however it is written.
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """Text that can stand between tags and in a quoted attribute of XML or HTML, whatever was in it."""
    return escape(_NOT_XML.sub("\ufffd", text), {'"': "&quot;", "'": "&#39;"})
