"""What each method and page asks of a key: all of the contract is in the table, and the table decides."""

import pytest
from starlette.routing import Route

from tidemill.v1 import account_pb2, inference_pb2, job_pb2, model_pb2, session_pb2
from tidemill_services.access import METHODS, PAGES, SERVICES, Access, Counting, check_access
from tidemill_services.api.account_messages import ROLES, SCOPES
from tidemill_services.api.interceptors import REFLECTION_SERVICES
from tidemill_services.domain.api_key import Role, Scope
from tidemill_services.domain.errors import RoleRequiredError, ScopeRequiredError
from tidemill_services.gateway.door import OPEN_PATHS
from tidemill_services.gateway.public import public_routes
from tidemill_services.identity import Caller

FILES = (account_pb2, inference_pb2, job_pb2, model_pb2, session_pb2)
CONTRACT = {
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def caller(role: Role, *scopes: Scope) -> Caller:
    return Caller("a", "k", role, None, scopes=frozenset(scopes))


@pytest.mark.rule("A9")
def test_every_method_of_the_contract_is_in_the_table_and_nothing_else_but_reflection() -> None:
    others = {method for method in METHODS if not method.startswith(REFLECTION_SERVICES)}
    assert others == CONTRACT
    assert {service for service in SERVICES if not service.startswith("grpc.")} == {
        service.full_name for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
    }


@pytest.mark.rule("A9")
def test_every_page_that_needs_a_key_is_in_the_table() -> None:
    routes = public_routes(None, None)  # type: ignore[arg-type]
    assert {route.path for route in routes if isinstance(route, Route)} == set(PAGES) | OPEN_PATHS
    assert all(isinstance(route, Route) for route in routes)


@pytest.mark.rule("A9")
@pytest.mark.parametrize("access", [*METHODS.values(), *PAGES.values()], ids=[*METHODS, *PAGES])
@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("role", Role)
def test_a_key_with_one_scope_may_do_what_that_scope_covers(access: Access, scope: Scope, role: Role) -> None:
    asking = caller(role, scope)
    if access.scope not in (None, scope):
        with pytest.raises(ScopeRequiredError, match=access.scope.lower()):
            check_access(asking, access, "it")
    elif access.role is Role.ADMIN and role is Role.USER:
        with pytest.raises(RoleRequiredError):
            check_access(asking, access, "it")
    else:
        assert check_access(asking, access, "it") is access


@pytest.mark.rule("A9")
def test_what_is_not_in_the_table_is_nobodys() -> None:
    with pytest.raises(ScopeRequiredError, match="No key may use /a/B"):
        check_access(caller(Role.ADMIN, *Scope), None, "/a/B")


def test_stopping_is_never_refused_for_a_limit() -> None:
    uncounted = {method.rpartition("/")[2] for method, access in METHODS.items() if access.counting is Counting.NOWHERE}
    assert uncounted == {"StopSession", "HeartbeatSession", "CancelGeneration"}


def test_every_role_and_scope_has_its_name_in_the_contract() -> None:
    assert set(ROLES) == set(Role)
    assert set(SCOPES) == set(Scope)
    assert set(SCOPES.values()) == set(account_pb2.ApiKey.Scope.values()) - {0}
    assert set(ROLES.values()) == set(account_pb2.ApiKey.Role.values()) - {0}
