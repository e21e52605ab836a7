"""The choice of tokens in our library, as Python calls it. It runs on any processor of x86-64; see choose.h."""

import ctypes
from array import array
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.native.library import LIBRARY

MAX_TOLD = 20  # of the likeliest tokens of a row


class RowWish(ctypes.Structure):
    """`RowWish` of choose.h; arrays that it points to must outlive it."""

    _fields_ = (
        ("biased", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("num_biased", ctypes.c_int64),
        ("penalised", ctypes.c_void_p),
        ("subtracted", ctypes.c_void_p),
        ("num_penalised", ctypes.c_int64),
        ("top_k", ctypes.c_int64),
        ("num_told", ctypes.c_int64),
        ("top_p", ctypes.c_double),
        ("others", ctypes.c_double),
        ("repetition", ctypes.c_float),
        ("temperature", ctypes.c_float),
        ("min_p", ctypes.c_float),
    )


class _Task(ctypes.Structure):
    """`Task` of choose.c."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        ("vocab", ctypes.c_int64),
        ("wishes", ctypes.c_void_p),
        ("chances", ctypes.c_void_p),
        ("room", ctypes.c_void_p),
        ("num_threads", ctypes.c_int64),
        ("most_told", ctypes.c_int64),
        ("tokens", ctypes.c_void_p),
        ("logprobs", ctypes.c_void_p),
        ("told_tokens", ctypes.c_void_p),
        ("told_logprobs", ctypes.c_void_p),
    )


class ChoosingLibrary:
    """The part of the loaded library that chooses."""

    def __init__(self, path: str, *, plainly: bool = False) -> None:
        """`plainly`: as on a processor without AVX2, which gives the same.

        Raises OSError where it cannot be loaded, AttributeError where it is an older one.
        """
        library = ctypes.CDLL(path)  # its calls let go of the interpreter
        _check_layout(library)
        self.room_bytes = library.tidemill_choose_room
        self.room_bytes.restype, self.room_bytes.argtypes = ctypes.c_int64, (ctypes.c_int64,)
        self.choose = library.tidemill_choose_plainly if plainly else library.tidemill_choose
        self.choose.restype, self.choose.argtypes = None, (ctypes.c_void_p,)


def _check_layout(library: ctypes.CDLL) -> None:
    """What we write must be what it reads: the same fields at the same places. Raises AttributeError where not."""
    tell = library.tidemill_choose_layout
    tell.restype, tell.argtypes = ctypes.c_char_p, (ctypes.c_int64, ctypes.POINTER(ctypes.c_int64))
    place = ctypes.c_int64()
    for number, (name, offset) in enumerate(_layout()):
        if tell(number, ctypes.byref(place)) != name.encode() or place.value != offset:
            raise AttributeError(f"the library reads another record: {name!r} is not at {offset}")


def _layout() -> Iterator[tuple[str, int]]:
    for record in (RowWish, _Task):
        for name, _ in record._fields_:
            yield name, getattr(record, name).offset
        yield "", ctypes.sizeof(record)


@cache
def find_choosing() -> ChoosingLibrary | None:
    """None where the library was not built."""
    try:
        return ChoosingLibrary(str(LIBRARY))
    except (OSError, AttributeError):
        return None


class RowChoices:
    """Chooses for rows of one length, in room that is kept. What it leaves in its arrays stays until its next call."""

    def __init__(self, library: ChoosingLibrary, vocab_size: int, num_threads: int = 1) -> None:
        self.vocab_size = vocab_size
        self._library, self._num_threads = library, num_threads
        self._room = np.zeros(library.room_bytes(vocab_size), np.uint8)
        self._wishes: Sequence[RowWish] = ()
        self._logits: NDArray[np.float32] | None = None  # those of the last call, alive while their address is here
        self._take_room(1)

    def seat(self, wishes: Sequence[RowWish]) -> None:
        """Say for whom the next calls choose, row by row."""
        if len(wishes) > len(self.tokens):
            self._take_room(len(wishes))
        self._wishes = wishes  # alive while their addresses are here
        self._addresses[: len(wishes)] = [ctypes.addressof(wish) for wish in wishes]
        self._task.num_rows = len(wishes)
        self._tokens = self.tokens[: len(wishes)]

    def choose(self, logits: NDArray[np.float32]) -> list[int]:
        """A token of each row [n, V], -1 where its highest logit is not a finite number; fills what is told.

        Rows that may be written are changed meanwhile, and put back.
        """
        if logits is not self._logits:
            self._take_logits(logits)
        self._library.choose(self._task_address)
        tokens: list[int] = self._tokens.tolist()
        return tokens

    def _take_logits(self, logits: NDArray[np.float32]) -> None:
        """A copy of rows that may not be written is good for one call."""
        is_ours = logits.flags.carray
        self._logits = logits if is_ours else None
        self._copy = None if is_ours else logits.copy()
        self._task.logits = (logits if self._copy is None else self._copy).ctypes.data

    def _take_room(self, num_rows: int) -> None:
        self._addresses = np.zeros(num_rows, np.uintp)
        self.chances = array("d", [0.0]) * num_rows  # from 0 to below 1, to be set before
        self.tokens = np.zeros(num_rows, np.int64)  # -1: the row's highest logit is not a finite number
        self.logprobs = np.zeros(num_rows)  # of these tokens, where a row wished for it
        self.told_tokens = np.zeros((num_rows, MAX_TOLD), np.int64)
        self.told_logprobs = np.zeros((num_rows, MAX_TOLD))
        self._task = _Task(
            vocab=self.vocab_size,
            wishes=self._addresses.ctypes.data,
            chances=self.chances.buffer_info()[0],
            room=self._room.ctypes.data,
            num_threads=self._num_threads,
            most_told=MAX_TOLD,
            tokens=self.tokens.ctypes.data,
            logprobs=self.logprobs.ctypes.data,
            told_tokens=self.told_tokens.ctypes.data,
            told_logprobs=self.told_logprobs.ctypes.data,
        )
        self._task_address = ctypes.addressof(self._task)
