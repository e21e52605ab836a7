"""Pages of a mill in memory."""


def page_of(found, request):
    """A page, and the token of the next one."""
    first = int(request.page_token or 0)
    size = min(request.page_size or 50, 2)  # small pages, so that paging is seen
    return found[first : first + size], str(first + size) if first + size < len(found) else ""
