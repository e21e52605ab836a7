"""What it costs to admit a generation: the key is checked, the model and the open session that pays are found, the
options are checked, the prompt is encoded and the engine's request is made.

Measured in this process on the parts that the control plane is made of, on a database of their own, one admission
after the other: processor time of all threads (the store's readers too) by the number of admissions. What every
unary call pays whoever admits it (gRPC, parsing, the replica, the answer) is not in it.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop

from tests.bench.platform.load import Load
from tests.funds import grant
from tidemill_models.package import load_package
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_services.catalogue import Catalogue
from tidemill_services.domain.generation import GenerationOptions, PromptInput
from tidemill_services.generation import Generations
from tidemill_services.identity import Identities
from tidemill_services.metrics import Metrics
from tidemill_services.scaler.replicas import Replicas
from tidemill_services.session_streams import SessionStreams
from tidemill_services.store import accounts, models, sessions
from tidemill_services.store.opening import open_database
from tidemill_services.store.secret_file import PlatformSecrets
from tidemill_services.token_funds import TokenFunds
from tidemill_services.usage_limits import UsageGuard
from tidemill_telemetry.tracing import NoTracing

_SECRET = b"bench"


def measure(package: Path, num_admissions: int) -> float:
    """Microseconds of processor time that one admission takes."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        return uvloop.run(_measure(Path(folder), package, num_admissions))


async def _measure(folder: Path, package: Path, num_admissions: int) -> float:
    database = open_database(f"sqlite:///{folder / 'bench.db'}")
    await database.open()
    renderer = TemplateRenderer()
    try:
        opened = load_package(package)
        name = opened.manifest.name
        await database.write(
            models.register_model,
            name=name,
            digest=opened.digest,
            manifest_json=opened.manifest.to_json(),
            package_path=str(package),
        )
        await database.write(accounts.create_account, "bench", "")
        await database.write(grant, "bench")
        key, api_key = await database.write(accounts.create_api_key, "bench", _SECRET)
        who = {"account_id": "bench", "key_id": key.key_id, "model": name, "holder": "bench"}
        await database.write(sessions.start_session, **who, price_microcredits_per_second=1)
        generations = Generations(
            database,
            Catalogue(database, renderer),
            Replicas(database, "bench", _SECRET),
            SessionStreams(),
            Metrics(),
            NoTracing(),
            UsageGuard(database, "bench"),
            TokenFunds(database, "bench"),
        )
        identities = Identities(database, PlatformSecrets(_SECRET))
        options = GenerationOptions(max_tokens=1, temperature=0.0)
        (prompt,) = Load(1, 1, prompt_letters=16).prompts()

        async def admit() -> None:
            caller = await identities.identify(api_key)
            async with generations.admit(caller, model=name, session="", options=options) as admission:
                await admission.take(PromptInput(prompt), field="input")

        for _ in range(20):
            await admit()  # reads the tokenizer, fills the caches
        before = time.process_time()
        for _ in range(num_admissions):
            await admit()
            await asyncio.sleep(0)
        return 1e6 * (time.process_time() - before) / num_admissions
    finally:
        renderer.close()
        await database.close()
