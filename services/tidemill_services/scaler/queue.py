"""A bounded queue that is fair between accounts: first come, first served within one, in turn between them."""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by account. Every account that waits gets its turn, however many items another one has.

    It is the turn of the account that holds the fewest places already; of equals, the one whose last turn is oldest.
    """

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._length = 0
        self._accounts: OrderedDict[str, deque[T]] = OrderedDict()  # whose turn is next comes first

    def __len__(self) -> int:
        """Items of all accounts."""
        return self._length

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits."""
        return self._length >= self._max_length

    def push(self, account_id: str, item: T) -> None:
        """Put an item at the end of its account's line."""
        self._accounts.setdefault(account_id, deque()).append(item)
        self._length += 1

    def next_account(self, num_held: Mapping[str, int]) -> str:
        """Whose turn it is, by what each account holds. Raises ValueError when nobody waits."""
        return min(self._accounts, key=lambda account_id: num_held.get(account_id, 0))

    def pop(self, account_id: str) -> T:
        """Take an account's next item. Raises KeyError when there is none."""
        items = self._accounts.pop(account_id)
        item = items.popleft()
        self._length -= 1
        if items:
            self._accounts[account_id] = items  # at the end: the others come first
        return item

    def remove(self, account_id: str, item: T) -> None:
        """Take an item out of its line; one that is not there changes nothing."""
        items = self._accounts.get(account_id)
        if items is None or item not in items:
            return
        items.remove(item)
        self._length -= 1
        if not items:
            del self._accounts[account_id]
