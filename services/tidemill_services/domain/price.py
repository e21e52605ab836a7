"""What models cost. Prices come in revisions: a new one changes nothing that has begun."""

from dataclasses import dataclass

from tidemill_services.domain.errors import FieldInvalidError

MAX_PRICE_MICROCREDITS = 10**12


@dataclass(frozen=True, slots=True)
class Price:
    """One revision of a model's price, in microcredits."""

    revision: int
    model: str
    account_id: str  # for which alone it holds; empty: for all without one of their own
    session_microcredits_per_second: int
    input_microcredits_per_million_tokens: int
    output_microcredits_per_million_tokens: int
    create_ms: int
    actor: str = ""  # the name of a key; empty: it came with the model's package
    withdrawn: bool = False  # the account's own price no longer holds


def check_price(microcredits: int, field: str) -> None:
    """Raise FieldInvalidError unless this can be a price."""
    if not 0 <= microcredits <= MAX_PRICE_MICROCREDITS:
        raise FieldInvalidError(f"{field} must be 0 to {MAX_PRICE_MICROCREDITS:,}.", field=field)
