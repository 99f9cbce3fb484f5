"""Runs the cells of a notebook in order, without Jupyter: `notebook.py FILE [--keep-outputs]`.

In an empty folder, in one namespace, as `jupyter execute` would. With `--keep-outputs` the file gets what the
cells print, and the images that they end with, as PNGs.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL.Image import Image

from edadm.console import say


def run(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs a cell; its outputs as notebooks store them."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as text:
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    outputs = []
    if printed := text.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)})
    if value is not None:
        data: dict[str, Any] = {
            "text/plain": [f"<image {value.size}>" if isinstance(value, Image) else repr(value)]
        }
        if isinstance(value, Image):
            value.save(file := io.BytesIO(), "PNG", optimize=True)
            data["image/png"] = base64.b64encode(file.getvalue()).decode()
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    return outputs


def main(file: Path, keeps: bool) -> None:
    """Runs all cells, and says how long each took."""
    notebook, names = json.loads(file.read_text(encoding="utf-8")), {"__name__": "__main__"}
    begin, home = time.monotonic(), Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
            start, source = time.monotonic(), "".join(cell["source"])
            cell["outputs"] = run(source, names)
            told = "".join(text for output in cell["outputs"] for text in output.get("text", []))
            say(f"{time.monotonic() - start:6.1f} s  {source.splitlines()[0]}\n{told}".rstrip())
        os.chdir(home)
    say(f"{time.monotonic() - begin:6.1f} s  all")
    if keeps:
        file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "--keep-outputs" in sys.argv)
