"""What of a page differs from one run to the next."""

from __future__ import annotations

import re

MEASURED = (
    r"Full precision with bf16 weights has speed [0-9.]+ "
    r"there[^.]*\.",  # its words, too: they say which was faster
    r'<td data-column="Speed">.*?</td>',
    r"<h2>Time and memory</h2>.*?</section>",
)


def without_times(html: str) -> str:
    """The report without its times."""
    for pattern in MEASURED:
        html = re.sub(pattern, "", html, flags=re.DOTALL)
    return html
