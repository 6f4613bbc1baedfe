"""What happens in a run of Snakemake, as JSON lines: ``{"event": "job_finished", "time": seconds, "job_id": 7}``.

The logger plugin sends the lines through a pipe to `run.py run_study`; the Snakefile writes them to results/{study}/logs/events.jsonl, where
`watch` reads them while the run holds Snakemake's lock. Standard library and psutil only.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from sft_atlas.core.processes import this_process

# Of each event of Snakemake's, the fields that are passed on.
FIELDS = {
    "run_info": ("stats",),
    "job_info": ("jobid", "rule_name", "log"),
    "job_started": ("jobs",),
    "job_finished": ("job_id",),
    "job_error": ("jobid", "rule_name", "log", "output", "shellcmd", "indent"),  # indent: of a group, all of whose jobs are named
}
BEGIN, END = "begin", "end"  # of a run: the first and the last line of a file


def line(record: logging.LogRecord) -> str | None:
    """A log record of Snakemake's as a line; warnings and errors outside jobs have the event "message", other records are None."""
    event = getattr(record, "event", None)
    if (name := str(event)) in FIELDS:
        found = {"event": name} | {field: getattr(record, field, None) for field in FIELDS[name]}
    elif event is None and record.levelno >= logging.WARNING:
        found = {"event": "message", "level": record.levelname, "text": record.getMessage()}
    else:
        return None
    return json.dumps(found | {"time": record.created}, default=str) + "\n"


class EventsFile(logging.Handler):
    """Writes the events of one run over those of the run before. A disk that cannot be written ends the record, not the run."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.stream = path, None

    def begin(self, time: float, **facts: object) -> None:
        """Start the file with what is known about the run: the process, the machine and ``facts``."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f"{self.path.name}.part")
            self.stream = part.open("w", encoding="utf-8")
            self._write({"event": BEGIN, "time": time, **this_process(), **facts})
            os.replace(part, self.path)  # who reads sees the whole first line
        except OSError:
            self.stream = None

    def end(self, time: float, success: bool) -> None:
        """Note how the run ended."""
        self._write({"event": END, "time": time, "success": success})

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream and (text := line(record)):
            self._write(text)

    def _write(self, value: str | Mapping[str, object]) -> None:
        if self.stream is None:
            return
        try:
            self.stream.write(value if isinstance(value, str) else json.dumps(value, default=str) + "\n")
            self.stream.flush()
        except OSError:
            self.stream = None


def read(path: Path) -> list[dict]:
    """The events in a file; a last line that is not whole yet is left out."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines(keepends=True) if text.endswith("\n")]
