"""The limits of a session: what its customer sets, and between which bounds."""

from dataclasses import dataclass, fields, replace

from tidemill_services.domain.errors import FieldInvalidError

MIN_LIMIT_MS = 1_000
MAX_IDLE_TIMEOUT_MS = 86_400_000  # a day
MAX_MAX_DURATION_MS = 30 * 86_400_000
MAX_SPEND_MICROCREDITS = 10**15


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """When a session ends by itself."""

    idle_timeout_ms: int = 900_000  # from the end of the last stream
    max_duration_ms: int = 43_200_000  # from when its clock first ran
    max_spend_microcredits: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of bounds, by the names of the contract. Raises FieldInvalidError."""
        _check_duration("limits.idle_timeout", self.idle_timeout_ms, MAX_IDLE_TIMEOUT_MS)
        _check_duration("limits.max_duration", self.max_duration_ms, MAX_MAX_DURATION_MS)
        spend = self.max_spend_microcredits
        if spend is not None and not 1 <= spend <= MAX_SPEND_MICROCREDITS:
            name = "limits.max_spend_microcredits"
            raise FieldInvalidError(f"{name} must be 1 to {MAX_SPEND_MICROCREDITS:,}, got {spend:,}.", field=name)

    def check_price(self, price_microcredits_per_second: int) -> None:
        """Raise FieldInvalidError when the spending limit does not pay for the first second."""
        spend = self.max_spend_microcredits
        if spend is not None and spend < price_microcredits_per_second:
            raise FieldInvalidError(
                f"limits.max_spend_microcredits must pay for a second at least, which costs "
                f"{price_microcredits_per_second:,}, got {spend:,}.",
                field="limits.max_spend_microcredits",
            )


@dataclass(frozen=True, slots=True)
class GivenLimits:
    """What a caller says of a session's limits; None: nothing."""

    idle_timeout_ms: int | None = None
    max_duration_ms: int | None = None
    max_spend_microcredits: int | None = None

    def over(self, limits: SessionLimits) -> SessionLimits:
        """Those limits with what is given in their place. Raises FieldInvalidError."""
        return replace(limits, **{name: value for name, value in self._given().items() if value is not None})

    def differ_from(self, limits: SessionLimits) -> bool:
        """Whether something is given that those limits have otherwise."""
        return any(value not in (None, getattr(limits, name)) for name, value in self._given().items())

    def _given(self) -> dict[str, int | None]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _check_duration(name: str, duration_ms: int, max_ms: int) -> None:
    if not MIN_LIMIT_MS <= duration_ms <= max_ms:
        raise FieldInvalidError(
            f"{name} must be {MIN_LIMIT_MS // 1000} to {max_ms // 1000:,} seconds, got {duration_ms / 1000:,} seconds.",
            field=name,
        )
