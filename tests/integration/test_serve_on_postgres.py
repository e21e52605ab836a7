"""The same program on a real PostgreSQL."""

from pathlib import Path

from tests.databases import PostgresServer, postgres_server
from tests.integration.api.conftest import text_of, wire_to
from tests.server_process import server_process

__all__ = ["postgres_server"]


def test_a_session_is_served_and_billed_on_postgres(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    with server_process(tmp_path, "--database", url) as server, wire_to(server) as wire:
        wire.start()
        assert text_of(list(wire.generate()))
        stopped = wire.stop().session
        assert stopped.bill.final
        assert stopped.bill.cost_microcredits > 0
    with server_process(tmp_path, "--database", url) as server, wire_to(server) as wire:
        again = wire.stop()
        assert again.already_ended
        assert again.session.name == stopped.name
        assert again.session.bill == stopped.bill
    postgres_server.drop_database(url)
