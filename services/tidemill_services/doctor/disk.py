"""The disk under the data directory."""

import os
from pathlib import Path

from tidemill_services.doctor.finding import Finding, ok, warning, wrong

MIN_FREE_BYTES = 64 << 20  # a server writes on; below this it soon cannot
LOW_FREE_BYTES = 1 << 30
_NETWORK = frozenset(
    (
        "9p",
        "afs",
        "ceph",
        "cifs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "gfs2",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    )
)
_IN_MEMORY = frozenset(("ramfs", "tmpfs"))


def check_filesystem(folder: Path, mounts: str, *, holds_sqlite: bool) -> Finding:
    """What kind of disk it is. `mounts` is the text of /proc/self/mountinfo; empty where there is none."""
    place = existing(folder)
    kind = filesystem_of(place, mounts)
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return wrong("disk", f"{place} is on a disk that is mounted read-only: choose another --data-dir.")
    if kind in _NETWORK and holds_sqlite:
        return warning(
            "disk",
            f"{place} is on a network disk ({kind}), where SQLite's locks are not safe: "
            "choose a --data-dir on a local disk, or a Postgres --database.",
        )
    if kind in _IN_MEMORY:
        return warning("disk", f"{place} is kept in memory ({kind}): the next boot empties it, keys and bills with it.")
    return ok("disk", f"{place} is on {kind or 'a disk of unknown kind'}.")


def check_free_space(folder: Path) -> Finding:
    """How much the server may still write there."""
    place = existing(folder)
    facts = os.statvfs(place)
    return judge_free_space(place, facts.f_bavail * facts.f_frsize, facts.f_favail if facts.f_files else None)


def judge_free_space(place: Path, num_bytes: int, num_files: int | None) -> Finding:
    """Bytes and files that may still be made; None where the disk counts no files."""
    free = f"{num_bytes / (1 << 20):,.0f} MiB"
    if num_bytes < MIN_FREE_BYTES:
        return wrong("free space", f"Only {free} are free under {place}: make room, a full disk stops every write.")
    if num_files is not None and num_files < 100:
        return wrong("free space", f"Only {num_files} files can still be made under {place}: remove some.")
    if num_bytes < LOW_FREE_BYTES:
        return warning("free space", f"Only {free} are free under {place}: make room before they are used up.")
    return ok("free space", f"{free} under {place}.")


def filesystem_of(place: Path, mounts: str) -> str:
    """The kind of file system that `place` lies on, from the text of mountinfo; empty when it does not say."""
    resolved, deepest, kind = place.resolve(), -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        depth = len(point.parts)
        if resolved.is_relative_to(point) and depth >= deepest:  # of two mounts at one point the later one shows
            deepest, kind = depth, after.split()[0]
    return kind


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())
