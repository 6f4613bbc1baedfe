"""Gives programs a cache folder where the home cannot be written, and Python one for bytecode where it would keep none.

`envs/install.py` puts this module into the environment, whose Pythons import it when they start: Snakemake needs a cache before it reads the
Snakefile, and matplotlib and the Hugging Face libraries have theirs in the home too. Where the home and the environment can be written it
changes nothing.
"""

import os
import sys
import tempfile


def writable(folder):
    """Whether a folder can be made or written here."""
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def cache(environment):
    """The folder for caches of this user."""
    return environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")


def redirect(environment, clone):
    """Set XDG_CACHE_HOME and MPLCONFIGDIR, unless the folders that they would name can be written."""
    if not writable(cache(environment)):
        place = os.path.join(clone, ".snakemake", "cache")
        if not writable(place):
            place = os.path.join(tempfile.gettempdir(), f"sft-atlas-{os.getuid()}")
        environment["XDG_CACHE_HOME"] = place
    if "MPLCONFIGDIR" not in environment and not writable(environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")):
        environment["MPLCONFIGDIR"] = os.path.join(cache(environment), "matplotlib")


def keep_bytecode(environment, packages):
    """Have this Python, and those that it starts, keep bytecode in the user's cache where they would keep none.

    That is where PYTHONDONTWRITEBYTECODE is set, as in many containers, or where the folder ``packages`` belongs to somebody else and was not
    compiled. Each of a study's hundreds of processes would compile again what it imports, which takes two thirds of the time of a dry run.
    """
    kept = not environment.get("PYTHONDONTWRITEBYTECODE") and writable(packages)
    if kept or sys.pycache_prefix or os.path.exists(os.path.join(packages, "snakemake", "__pycache__")):
        return
    folder = os.path.join(cache(environment), "sft-atlas", "bytecode")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        owners = {os.stat(path).st_uid for path in (cache(environment), folder)}
    except OSError:
        return
    if owners != {os.getuid()}:  # code that somebody else may have written
        return
    sys.dont_write_bytecode, sys.pycache_prefix = False, folder
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = folder


if __name__ != "__main__":
    redirect(os.environ, os.path.dirname(sys.prefix))
    keep_bytecode(os.environ, os.path.dirname(os.path.abspath(__file__)))
