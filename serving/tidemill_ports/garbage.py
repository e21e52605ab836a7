"""How often a serving process looks for garbage that holds itself."""

import gc

_NUM_NEW_OBJECTS = 20_000  # between two looks; Python's own is 700


def look_for_garbage_rarely() -> None:
    """Leave alone what is here already, and look at what comes later less often.

    Nearly all that a call makes goes when it ends. With Python's own numbers the looks took about a twentieth of the
    event loop's time in a profile of short calls.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NUM_NEW_OBJECTS, 10, 10)
