"""What comes to standard error past the log, from libraries in C and from child processes, becomes lines of it."""

import atexit
import faulthandler
import logging
import os
import sys
import threading
from typing import TextIO

logger = logging.getLogger("tidemill.stderr")

LAST_WORDS_SECONDS = 1.0


def take_over_stderr() -> TextIO:
    """Make a warning of every line that comes to file descriptor 2 from now on; return where the log itself writes.

    The process's own crash is told past it, as it comes: nobody would be left to make a line of it.
    """
    real = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    faulthandler.enable(real)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    reader = threading.Thread(target=_read, args=(reading,), name="stray-lines", daemon=True)
    reader.start()
    atexit.register(_give_back, real, reader)
    return real


def _read(reading: int) -> None:
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if text := line.decode(errors="replace").strip():
                logger.warning("%s", text)


def _give_back(real: TextIO, reader: threading.Thread) -> None:
    sys.stderr.flush()
    os.dup2(real.fileno(), 2)  # the pipe ends here, unless a child still has it
    reader.join(LAST_WORDS_SECONDS)
