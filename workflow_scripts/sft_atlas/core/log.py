"""The log of a job, and what it shows on the terminal."""

import logging
import os
import sys
from pathlib import Path

LOG = logging.getLogger("sft_atlas")
_terminal = sys.stderr  # where someone may be watching
_output = sys.stdout  # where a job shows what someone requested


def open_log(path: Path | None) -> None:
    """Send messages to the log and, from warnings on, to the terminal; whatever libraries print goes to the log."""
    global _terminal, _output
    _terminal, _output = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (2, 1))
    terminal = logging.StreamHandler(_terminal)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [terminal]
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, mode="a", encoding="utf-8")
        for stream in (1, 2):
            os.dup2(file.stream.fileno(), stream)
        sys.stdout.reconfigure(line_buffering=True)  # so that the log has what was printed even if the job is killed
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(file)
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, must not fill the terminal with tracebacks
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for noisy in ("httpx2", "urllib3", "filelock", "fsspec", "datasets", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").propagate = False  # third-party warnings belong in the log, not on the terminal
    for handler in handlers[1:]:
        logging.getLogger("py.warnings").addHandler(handler)


def progress(message: str) -> None:
    """Log a line of progress, and show it if stderr is a terminal."""
    LOG.info("%s", message)
    if _terminal.isatty():
        print(f"  {message}", file=_terminal)


def print_to_terminal(text: str) -> None:
    """Show what someone requested, wherever the log goes."""
    print(text, file=_output)
