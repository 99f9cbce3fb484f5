"""Prints a shell block of README.md's section "Quick start", which has two.

`python3 .ci/quick_start.py 1` prints the first.
"""

import re
import sys
from pathlib import Path


def blocks(readme: str) -> list[str]:
    """The fenced blocks of the section, each of which must be a shell's."""
    section = re.search(r"^## Quick start\n(.*?)(?=^## |\Z)", readme, re.DOTALL | re.MULTILINE)
    if section is None:
        sys.exit("README.md has no section '## Quick start'")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    languages = [language for language, _ in found]
    if len(found) != 2 or not set(languages) <= {"bash", "sh", "shell", ""}:
        sys.exit(f"README.md's quick start should have two fenced blocks of shell, but they are {languages}")
    return [block for _, block in found]


if __name__ == "__main__":
    sys.stdout.write(blocks(Path("README.md").read_text(encoding="utf-8"))[int(sys.argv[1]) - 1])
