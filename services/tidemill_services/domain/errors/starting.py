"""What keeps a program from starting; never on the wire."""

from tidemill_services.domain.errors.kinds import TidemillError


class CannotStartError(TidemillError):
    """The program cannot start with what it found; the sentence says what to change. Never on the wire."""


class BackupUnknownError(CannotStartError):
    """The file is no backup that this version can restore."""


class BackupDamagedError(CannotStartError):
    """The backup is cut off or was changed."""
