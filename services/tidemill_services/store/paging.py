"""What all lists have in common."""

from tidemill_services.domain.errors import FieldInvalidError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1_000


def page_size_of(page_size: int) -> int:
    """How many to return; 0 means 50. Raises FieldInvalidError."""
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        raise FieldInvalidError(f"page_size must be 0 to {MAX_PAGE_SIZE:,}, got {page_size:,}.", field="page_size")
    return page_size or DEFAULT_PAGE_SIZE


def wrong_page_token() -> FieldInvalidError:
    """The refusal of a token that no page returned."""
    return FieldInvalidError("page_token must be one that the last page returned.", field="page_token")


def sequence_of(page_token: str) -> int:
    """The number that a page token stands for. Raises FieldInvalidError."""
    if not page_token.isascii() or not page_token.isdecimal() or len(page_token) > 18:
        raise wrong_page_token()
    return int(page_token)
