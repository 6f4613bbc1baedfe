"""A logger plugin of Snakemake (`--logger events`): what happens in a run, as JSON lines to a pipe.

`run.py run_study` starts Snakemake with this folder on PYTHONPATH, so that Snakemake finds the plugin, and reads the pipe, whose number is
in SFT_ATLAS_EVENTS. Snakemake's own log stays as it is.
"""

import logging
import os

from snakemake_interface_logger_plugins.base import LogHandlerBase

# Every Snakemake of this environment imports this module when it starts, also one that runs another clone: `sft_atlas` is left to the
# Snakefile, which takes that of its own clone.

VARIABLE = "SFT_ATLAS_EVENTS"


class LogHandler(LogHandlerBase):
    """Writes the lines of ``sft_atlas.core.run_events``."""

    writes_to_stream = False  # Snakemake's default handler stays
    writes_to_file = False
    has_filter = True  # `--quiet` is for what people read
    has_formatter = True
    needs_rulegraph = False

    def emit(self, record: logging.LogRecord) -> None:
        from sft_atlas.core import run_events

        if not (text := run_events.line(record)):
            return
        try:
            os.write(int(os.environ[VARIABLE]), text.encode())
        except OSError:
            self.handleError(record)  # nobody reads any more; the run goes on
