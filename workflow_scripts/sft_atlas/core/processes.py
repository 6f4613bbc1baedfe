"""Which process on which machine a record was written by, and whether that process goes on. Standard library and psutil only."""

import os
from collections.abc import Mapping


def this_process() -> dict[str, object]:
    """What :func:`is_running` recognises this process by; its number alone may be given to another one later."""
    import psutil

    return {"pid": os.getpid(), "process_began": psutil.Process().create_time(), "host": os.uname().nodename}


def is_running(process: Mapping) -> bool | None:
    """Whether a process goes on; None for one on another machine, of which nobody here can know."""
    import psutil

    if process["host"] != os.uname().nodename:
        return None
    try:
        return abs(psutil.Process(process["pid"]).create_time() - process["process_began"]) < 1
    except psutil.NoSuchProcess:
        return False
