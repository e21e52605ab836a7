"""Lists that come page by page."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from tidemill.methods import Method
from tidemill.steps import Deadline, Emit, Line, Plan, build, check_count, unary

_PAGE = 1_000
Item = TypeVar("Item")


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


def pages(
    method: Method[Any, Any],
    of_page: Callable[[Any], list[Item]],
    limit: int,
    deadline: Deadline,
    **fields: object,
) -> Plan[list[Item]]:
    """Fetch a list, at most `limit` of it. Raises FieldInvalidError."""
    check_count(limit, "limit")
    found: list[Item] = []
    token = ""
    while len(found) < limit:
        page = yield from _page(method, min(limit - len(found), _PAGE), token, deadline, fields)
        found += of_page(page)
        token = page.next_page_token
        if not token:
            break
    return found[:limit]


def emitted_pages(
    method: Method[Any, Any],
    of_page: Callable[[Any], list[Item]],
    line: Line,
    new_deadline: Callable[[], Deadline],
    **fields: object,
) -> Plan[None]:
    """Emit a list's items, and fetch each page when the one before was read, until the line is closed.

    Each page has a deadline of its own: between two, it is the reader who takes time.
    """
    token = ""
    while not line.is_closed:
        page = yield from _page(method, _PAGE, token, new_deadline(), fields)
        for item in of_page(page):
            yield Emit(item)
            if line.is_closed:
                return
        token = page.next_page_token
        if not token:
            return


def _page(
    method: Method[Any, Any], size: int, token: str, deadline: Deadline, fields: dict[str, object]
) -> Plan[_Page]:
    request = build(method.request, page_size=size, page_token=token, **fields)
    page: _Page = yield from unary(method, request, deadline)
    return page
