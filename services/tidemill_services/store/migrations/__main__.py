"""Drafts the next migration from what changed in `tables`: `python -m tidemill_services.store.migrations "Why"`.

A draft is read and completed by hand: names that changed, rows that must move.
"""

import argparse

from alembic import command
from sqlalchemy import create_engine

from tidemill_services.store import migrations


def main() -> None:
    """Compare an empty migrated database with the tables; write the difference into `versions/`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("message", help="what the migration does, as a sentence")
    message: str = parser.parse_args().message
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        migrations.upgrade(connection)
        config = migrations.alembic_config(connection)
        next_id = f"{int(migrations.newest_revision()) + 1:04d}"
        command.revision(config, message.rstrip("."), autogenerate=True, rev_id=next_id)
    engine.dispose()


if __name__ == "__main__":
    main()
