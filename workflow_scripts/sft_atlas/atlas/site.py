"""Write a folder of pages that opens from a disk: no server, no network, nothing that is not beside it.

    index.html, {page}.html      one file per page, from ``web/{page}.html`` (Jinja2, autoescape)
    assets/                      style, one script per page, the bundles of DataTables and Plotly from their Python packages
    data/{name}.js               data as a script, because a page from a disk may not fetch: ``atlas.put(name, base64 of gzip of JSON)``

A page loads data when it needs them (``atlas.data(name)`` in ``web/atlas.js``). Names and texts of models are data: templates escape them,
scripts insert them as text, and the pages' Content-Security-Policy allows no script that is not a file of the atlas.
"""

import base64
import gzip
import json
import math
import os
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import jinja2

from sft_atlas.core.errors import AtlasError

WEB = Path(__file__).parent / "web"
# Bundles inside installed Python packages: the name here, package, file.
BUNDLES = {
    "datatables.js": ("itables", "html/dt_bundle.js"),
    "datatables.css": ("itables", "html/dt_bundle.css"),
    "plotly.js": ("plotly", "package_data/plotly.min.js"),
}
EXPORTS = re.compile(r"\bexport\s*\{([^{}]*)\};?\s*(/\*(?:[^*]|\*(?!/))*\*/)?\s*$")  # the end of an ES module, where licences may follow


class Site:
    """A folder of pages under construction; :meth:`finish` puts it in place of an earlier one.

    ``title`` stands above every page; ``pages`` are (name, title) in the order of the navigation.
    """

    def __init__(self, folder: Path, title: str, pages: list[tuple[str, str]], about: str = ""):
        self.folder, self.title, self.pages, self.about = Path(folder), title, pages, about
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.part = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        for name in ("assets", "data"):
            (self.part / name).mkdir()
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        for name in ("atlas.css", "atlas.js"):
            self.asset(WEB / name)

    def data(self, name: str, value: object) -> None:
        """Write ``data/{name}.js``. NaN and infinite numbers become null, which pages show as missing."""
        target = self.part / "data" / f"{name}.js"
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(finite(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        packed = base64.b64encode(gzip.compress(text, mtime=0)).decode()
        target.write_text(f'atlas.put({json.dumps(name)},"{packed}");\n', encoding="utf-8")

    def page(self, name: str, libraries: tuple[str, ...] = (), **context: object) -> None:
        """Write ``{name}.html`` from its template, with its script ``web/{name}.js`` and the bundles in ``libraries``."""
        self.asset(WEB / f"{name}.js")
        for library in libraries:
            for ending in ("js", "css"):
                if f"{library}.{ending}" in BUNDLES:
                    self._bundle(f"{library}.{ending}")
        shared = {"site": self, "page": name, "libraries": libraries, "bundles": BUNDLES}
        text = self.templates.get_template(f"{name}.html").render(**shared, **context)
        (self.part / f"{name}.html").write_bytes(text.encode("utf-8", "replace"))

    def asset(self, path: Path, folder: str = "assets") -> str:
        """Copy a file beside the pages; return its address as the pages see it. AtlasError where there is none."""
        if not path.is_file():
            raise AtlasError(f"{path} is missing; make it with: snakemake {path}")
        target = self.part / folder / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(path, target)
        return f"{folder}/{path.name}"

    def finish(self) -> None:
        """Replace the folder by what was written. Until here an earlier atlas is as it was."""
        os.chmod(self.part, 0o755)  # mkdtemp makes it private
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self.part, self.folder)

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.part, ignore_errors=True)

    def _bundle(self, name: str) -> None:
        target = self.part / "assets" / name
        if not target.exists():
            text = bundle(*BUNDLES[name])
            target.write_text(as_script(text) if name == "datatables.js" else text, encoding="utf-8")


def bundle(package: str, file: str) -> str:
    """The text of a file inside an installed package, which is not imported. AtlasError where it is not there."""
    spec = find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / file if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise AtlasError(f"the Python package {package} with its file {file} is not installed; run make env")
    return path.read_text(encoding="utf-8")


def as_script(module: str) -> str:
    """An ES module as a classic script, because browsers load no modules from a disk: its exports become ``window.DataTable`` and so on.

    AtlasError where the module does not end in a list of exports.
    """
    found = EXPORTS.search(module)
    if not found:
        raise AtlasError("the bundle of DataTables in the Python package itables has another form than that of its pinned version")
    names = dict(reversed(one.split(" as ")) for one in map(str.strip, found[1].split(",")))
    exported = "".join(f"window.{name}={names[key]};" for key, name in (("default", "DataTable"), ("jQuery", "jQuery")))
    return f"(function(){{{module[: found.start()]}\n{exported}}})();\n{found[2] or ''}\n"


def finite(value: object) -> object:
    """The value with null for every number that is not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
