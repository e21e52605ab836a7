"""How often a serving process looks for garbage that holds itself."""

import gc

_NUM_NEW_OBJECTS = 20_000  # between two looks; Python's own is 700, less than a few calls that run at once have


def look_for_garbage_rarely() -> None:
    """Leave alone what is here already, and look at what comes later less often.

    A call makes hundreds of objects that all go when it ends, so nearly every look at them is in vain. With Python's
    own numbers that is a sixteenth of what a call costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NUM_NEW_OBJECTS, 10, 10)
