"""Modules that say shapes are imported so that every call checks them.

Others are imported as they are: they have nothing to check that mypy does not, and checks take time.
"""

from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).parent
# A network may pause within these while another runs; sizes of open calls lie in one stack of the thread.
PAUSED_WITHIN = {"edadm.nn.attention"}
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "edadm").rglob("*.py"))
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
install_import_hook([name for name in SHAPED if name not in PAUSED_WITHIN], "beartype.beartype")
