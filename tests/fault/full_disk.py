"""A disk that a test fills and frees, for the processes below whose environment says so."""

from pathlib import Path

from tests.fault import preload


class FullDisk:
    """The disk below a folder. On one that is full, files can be read and overwritten; none grows, and none is made."""

    def __init__(self, folder: Path, switch_folder: Path) -> None:
        """The processes must be able to read the switch's folder, which lies elsewhere."""
        folder.mkdir(parents=True, exist_ok=True)
        self._switch = switch_folder / "disk-is-full"
        self._switch.write_bytes(b"\0")
        self._switch.chmod(0o644)
        self.environment = {
            "LD_PRELOAD": str(preload.build("full_disk", switch_folder)),
            "TEST_FULL_DISK_SWITCH": str(self._switch),
            "TEST_FULL_DISK_FOLDER": str(folder),
        }

    def fill(self) -> None:
        """Leave no room from now on."""
        self._turn(b"\1")

    def free(self) -> None:
        """Let there be room again."""
        self._turn(b"\0")

    def _turn(self, to: bytes) -> None:
        with self._switch.open("r+b", buffering=0) as file:
            file.write(to)  # in place: it is mapped
