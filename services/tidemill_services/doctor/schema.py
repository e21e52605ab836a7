"""Which schema a database has, and whether this version of Tidemill is the one for it."""

from pathlib import Path

from tidemill_services.doctor.finding import Finding, ok, warning, wrong

_VERSIONS = Path(__file__).parents[1] / "store" / "migrations" / "versions"


def known_revisions() -> tuple[str, ...]:
    """The revisions that this version has migrations for, oldest first, read from their files' names."""
    return tuple(sorted(path.name[1:].partition("_")[0] for path in _VERSIONS.glob("r*_*.py")))


def check_schema(database: str, revision: str | None) -> Finding:
    """Whether a start would find the schema right, migrate it, or refuse it. `revision` None: it has no tables yet."""
    known = known_revisions()
    if revision is None:
        return ok("schema", f"{database} has no tables yet; the first start makes them.")
    if revision == known[-1]:
        return ok("schema", f"{database} has the schema {revision}, the one of this version.")
    if revision in known:
        sentence = (
            f"{database} has the schema {revision}, and the next start migrates it to {known[-1]}: make a copy before, "
            "`tidemill admin backup FILE`."
        )
        return warning("schema", sentence)
    sentence = (
        f"{database} has the schema {revision}, and this version knows it up to {known[-1]}: a newer Tidemill wrote "
        "it. Start that one, or take the schema down with it (`tidemill admin migrate --to REVISION`)."
    )
    return wrong("schema", sentence)
