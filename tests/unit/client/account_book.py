"""The accounts and keys of a mill in memory."""

from tests.unit.client.paging import page_of
from tidemill.v1 import account_pb2, account_pb2_grpc

ACCOUNT = "accounts/mine"


class AccountBook(account_pb2_grpc.AccountServiceServicer):
    """Keeps what it is told, and notes each act."""

    def __init__(self) -> None:
        self.accounts = {ACCOUNT: account_pb2.Account(name=ACCOUNT, display_name="Mine", use_cache=True)}
        self.keys: dict[str, account_pb2.ApiKey] = {}
        self.events: list[account_pb2.AuditEvent] = []
        self.shows_secrets = True

    def _note(self, action: str, resource: str, **changes: tuple[str, str]) -> None:
        event = account_pb2.AuditEvent(
            sequence_number=len(self.events) + 1,
            actor=f"{ACCOUNT}/keys/0",
            action=action,
            resource=resource,
            changes=[
                account_pb2.AuditEvent.Change(field=field, old_value=old, new_value=new)
                for field, (old, new) in changes.items()
            ],
        )
        event.event_time.FromSeconds(1_700_000_000 + len(self.events))
        self.events.insert(0, event)

    def _secret(self) -> str:
        return f"tm_secret_{len(self.events)}" if self.shows_secrets else ""

    def GetAccount(self, request, context):  # noqa: N802
        self._enter("GetAccount", request, context)
        return self.accounts[request.name or ACCOUNT]

    def CreateAccount(self, request, context):  # noqa: N802
        self._enter("CreateAccount", request, context)
        made = account_pb2.Account(use_cache=True)
        made.MergeFrom(request.account)
        made.name = f"accounts/{request.account_id or 'chosen'}"
        self.accounts[made.name] = made
        self._note("CreateAccount", made.name)
        return made

    def UpdateAccount(self, request, context):  # noqa: N802
        self._enter("UpdateAccount", request, context)
        found = self.accounts[request.account.name or ACCOUNT]
        before = found.display_name
        _merge(found, request.account, request.update_mask.paths)
        self._note("UpdateAccount", found.name, display_name=(before, found.display_name))
        return found

    def ListAccounts(self, request, context):  # noqa: N802
        self._enter("ListAccounts", request, context)
        found = sorted(self.accounts.values(), key=lambda account: account.name)
        page, token = page_of(found, request)
        return account_pb2.ListAccountsResponse(accounts=page, next_page_token=token)

    def CreateApiKey(self, request, context):  # noqa: N802
        self._enter("CreateApiKey", request, context)
        made = account_pb2.ApiKey(role=account_pb2.ApiKey.ROLE_USER)
        made.MergeFrom(request.api_key)
        made.name = f"{request.account or ACCOUNT}/keys/{len(self.keys) + 1:x}"
        made.create_time.FromSeconds(1_700_000_000)
        self.keys[made.name] = made
        self._note("CreateApiKey", made.name)
        return account_pb2.CreateApiKeyResponse(api_key=made, secret=self._secret())

    def GetApiKey(self, request, context):  # noqa: N802
        self._enter("GetApiKey", request, context)
        return self.keys[request.name]

    def ListApiKeys(self, request, context):  # noqa: N802
        self._enter("ListApiKeys", request, context)
        account = request.account or ACCOUNT
        page, token = page_of([key for key in reversed(self.keys.values()) if key.name.startswith(account)], request)
        return account_pb2.ListApiKeysResponse(api_keys=page, next_page_token=token)

    def UpdateApiKey(self, request, context):  # noqa: N802
        self._enter("UpdateApiKey", request, context)
        found = self.keys[request.api_key.name]
        _merge(found, request.api_key, request.update_mask.paths)
        self._note("UpdateApiKey", found.name)
        return found

    def RotateApiKey(self, request, context):  # noqa: N802
        self._enter("RotateApiKey", request, context)
        found = self.keys[request.name]
        if request.overlap.ToSeconds():
            found.old_secret_expire_time.FromSeconds(1_700_000_000 + request.overlap.ToSeconds())
        self._note("RotateApiKey", found.name)
        return account_pb2.RotateApiKeyResponse(api_key=found, secret=self._secret())

    def RevokeApiKey(self, request, context):  # noqa: N802
        self._enter("RevokeApiKey", request, context)
        found = self.keys[request.name]
        found.revoke_time.FromSeconds(1_700_000_100)
        self._note("RevokeApiKey", found.name)
        return found

    def ListAuditEvents(self, request, context):  # noqa: N802
        self._enter("ListAuditEvents", request, context)
        page, token = page_of(self.events, request)
        return account_pb2.ListAuditEventsResponse(audit_events=page, next_page_token=token)


def _merge(found, given, paths) -> None:
    """Take over what the paths name."""
    for path in paths:
        found.ClearField(path)
        value = getattr(given, path)
        if hasattr(value, "extend"):
            getattr(found, path).extend(value)
        elif hasattr(value, "CopyFrom"):
            if given.HasField(path):
                getattr(found, path).CopyFrom(value)
        else:
            setattr(found, path, value)
