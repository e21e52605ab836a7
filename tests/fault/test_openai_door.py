"""What callers of the OpenAI door learn when a replica dies in mid-stream."""

import os
import signal
import time
from pathlib import Path

import openai
import pytest

from tests.fault.baseline import replicas_of
from tests.integration.api.conftest import MODEL, wire_to
from tests.scale import bound
from tests.server_process import server_process

pytestmark = pytest.mark.fault


def test_a_replica_killed_in_mid_stream_is_told_in_the_stream_and_the_next_request_works(tmp_path: Path) -> None:
    with server_process(tmp_path, "--replica-device", "fake") as server, wire_to(server) as wire:
        wire.start()
        client = openai.OpenAI(api_key=server.api_key, base_url=f"http://{server.http}/v1", max_retries=0)
        settings: dict = {"model": MODEL, "prompt": "on and on", "extra_headers": {"x-tidemill-wait": "60"}}
        with client, client.completions.create(stream=True, max_tokens=1000, **settings) as stream:
            assert next(iter(stream)).choices[0].text
            for replica in replicas_of(server):
                os.kill(replica, signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(openai.APIError) as broken:
                list(stream)
            assert time.monotonic() - killed < bound(2, busy=60)
            assert broken.value.code == "REPLICA_LOST"
            assert client.completions.create(max_tokens=3, **settings).choices[0].text
