"""What a serving process looks at when it looks for garbage that holds itself."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_looked_for() -> Iterator[None]:
    """Look for none within, which is for imports: they leave none, and looks took a sixth of a server's."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def leave_out_what_is_here() -> None:
    """Never look again at what is here already: modules and settings stay as long as the process does.

    For after the imports: the five hundred objects of garbage that these leave stay too, since looking for them takes
    longer than they are worth.
    Looks stay as frequent as Python has them. Fewer would save a twentieth of the event loop's time in short calls, and
    let the errors of refused requests hold on to their texts: after 200 prompts of 10 MiB the server had 500 MiB.
    """
    gc.freeze()
