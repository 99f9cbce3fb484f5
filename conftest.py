"""Modules that say shapes are imported so that every call checks them.

Others are imported as they are: they have nothing to check that mypy does not, and checks took a third of the
processor's time in tests that run a whole command.
"""

from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).parent
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "edadm").rglob("*.py"))
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
install_import_hook(SHAPED, "beartype.beartype")
