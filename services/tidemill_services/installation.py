"""What a control process finds in its data directory, or makes there, before it serves."""

import asyncio
import logging
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from tidemill_models.manifest_tables import MANIFEST_NAME
from tidemill_models.package import ModelPackage, bundled_packages, load_package
from tidemill_services import local_user
from tidemill_services.domain.api_key import Role
from tidemill_services.domain.errors import ApiKeyInvalidError
from tidemill_services.domain.ledger import Contra, EntryKind, Posting
from tidemill_services.domain.price import Price
from tidemill_services.domain.pricing import MICROCREDITS_PER_CREDIT
from tidemill_services.identity import Identities
from tidemill_services.settings import Settings
from tidemill_services.store import accounts, api_keys, ledger, models, prices
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.secret_file import PlatformSecrets

logger = logging.getLogger(__name__)

LOCAL_ACCOUNT = "local"
LOCAL_MICROCREDITS = 10_000_000 * MICROCREDITS_PER_CREDIT


def host_id_of(data_dir: Path) -> str:
    """The same in each life of a process with this data directory."""
    path = data_dir / "host_id"
    if not path.exists():
        local_user.write_private(path, f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}\n")
    return path.read_text().strip()


async def register_packages(database: Database, folders: tuple[Path, ...]) -> None:
    """Make known what is bundled, and each package in these folders. Raises ModelPackageError."""
    packages = bundled_packages()
    for folder in folders:  # of packages, or itself a package
        packages += sorted(found.parent for found in (*folder.glob(MANIFEST_NAME), *folder.glob(f"*/{MANIFEST_NAME}")))
    for folder in packages:
        package = await asyncio.to_thread(load_package, folder)
        await database.write(_register, package)


def _register(tx: Transaction, package: ModelPackage) -> None:
    manifest = package.manifest
    models.register_model(
        tx,
        name=manifest.name,
        digest=package.digest,
        manifest_json=manifest.to_json(),
        package_path=str(package.folder),
    )
    price = Price(
        revision=0,
        model=manifest.name,
        account_id="",
        session_microcredits_per_second=manifest.prices.session_per_second,
        input_microcredits_per_million_tokens=manifest.prices.input_per_million_tokens,
        output_microcredits_per_million_tokens=manifest.prices.output_per_million_tokens,
        create_ms=tx.now_ms,
    )
    prices.enter_package_price(tx, price)


async def tell_of_other_secrets(database: Database, platform_secrets: PlatformSecrets) -> None:
    """Say which keys are not under the platform's secret: while it is rotated, and where it was lost or replaced."""
    num_left = await database.read(api_keys.count_under_other_secrets, platform_secrets.current)
    if platform_secrets.old is not None:
        logger.warning("the platform's secret is rotated: %d keys were not used since", num_left)
    elif num_left:
        logger.warning(
            "API keys that do not work, since they were made under another secret than the platform's: %d. "
            "Bring that secret back, or rotate or revoke them",
            num_left,
        )


async def local_api_key(database: Database, identities: Identities, secret: bytes, settings: Settings) -> str:
    """The key of whoever runs the server, kept in a file; a new one when there is none or it is not valid any more."""
    path = settings.data_dir / "api_key"
    kept = local_user.read_api_key(path)
    with suppress(ApiKeyInvalidError):
        if kept:
            caller = await identities.identify(kept)
            await database.write(
                api_keys.set_auto_session, caller.account_id, caller.key_id, auto_session=settings.auto_session
            )
            await database.write(_fund_local_account)  # one of before there was a ledger has nothing yet
            return kept

    def create(tx: Transaction) -> str:
        accounts.create_account(tx, LOCAL_ACCOUNT, "Who runs this server")
        _fund_local_account(tx)
        _, api_key = accounts.create_api_key(
            tx,
            LOCAL_ACCOUNT,
            secret,
            display_name="local",
            role=Role.ADMIN,
            auto_session=settings.auto_session,
        )
        return api_key

    api_key = await database.write(create)
    local_user.write_private(path, api_key + "\n")
    return api_key


def _fund_local_account(tx: Transaction) -> None:
    """Give whoever runs the server credits, once: the machine is theirs, and the bill shows what its use is worth."""
    if ledger.balance_of(tx, LOCAL_ACCOUNT).account_sequence == 0:
        ledger.post(
            tx,
            LOCAL_ACCOUNT,
            [Posting(EntryKind.GRANT, Contra.GRANTS, LOCAL_MICROCREDITS, reason="For who runs this server")],
        )
