"""What administrators and the command line do to accounts.

Room: translates `/v1/admin/…` to the services of accounts and back. Everything here is for
administrators of the caller's application, the owner token among them.
"""

from aiohttp import web

from node.api.civicbase.account_views import (
    ADMIN,
    EMAIL,
    FLAG,
    MADE,
    MESSAGE,
    PASSWORD,
    USERNAME,
    AccountDeps,
    account_meant,
    acting_user,
    admin_view,
    schema,
)
from node.api.civicbase.paging import page_schema, paging, read_paging
from node.api.errors import ValidationFailed
from node.api.replies import json_response
from node.api.requests import read_json, read_query
from node.api.routes import CALLER, Auth, Route
from node.services.account_rules import REQUIRED, check_email

TAGS = ("Administration",)


def routes(deps: AccountDeps) -> list[Route]:
    """The routes under `/v1/admin` that concern accounts."""
    accounts = deps.identity.accounts

    async def create_admin(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        account = await accounts.create_admin(
            caller.application,
            email=body.get("email"),
            username=body.get("username"),
            password=body.get("password"),
            user=acting_user(caller),
        )
        return json_response({"message": "Administrator created successfully", "user_id": account.id}, 201)

    async def list_accounts(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        query = read_query(request)
        faults: dict[str, str] = {}
        page, per_page = read_paging(query, faults)
        if faults:
            raise ValidationFailed(faults)
        if "email" in query:
            email, fault = check_email(query["email"])
            if fault:
                raise ValidationFailed({"email": fault})
            found = await accounts.find_by_email(caller.application, email)
            total, page = len(found), 1
        else:
            found, total = await accounts.page(
                caller.application, page=page, per_page=per_page, with_disabled=True
            )
        items = [admin_view(account) for account in found]
        return json_response({"items": items, "total": total, "page": page, "per_page": per_page})

    async def update_account(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        is_disabled = body.get("disabled")
        if not isinstance(is_disabled, bool):
            raise ValidationFailed({"disabled": REQUIRED if is_disabled is None else "Must be true or false"})
        user = account_meant(request, caller)
        await accounts.set_disabled(caller.application, user, is_disabled, user=acting_user(caller))
        return json_response(admin_view(accounts.require(caller.application, user)))

    async def set_password(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        user = account_meant(request, caller)
        await accounts.set_password(caller.application, user, body.get("password"), user=acting_user(caller))
        message = "Password set successfully. What was encrypted for this user cannot be opened any more"
        return json_response({"message": message})

    async def reset_mfa(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        await accounts.reset_mfa(caller.application, account_meant(request, caller), user=acting_user(caller))
        return json_response({"message": "MFA reset successfully"})

    return [
        Route(
            "POST",
            "/v1/admin/admins",
            create_admin,
            "Make an administrator account",
            auth=Auth.ADMIN,
            request=schema(
                "email password",
                email=EMAIL,
                password=PASSWORD,
                username={"anyOf": [USERNAME, {"type": "null"}]},
            ),
            responses={201: MADE},
            tags=TAGS,
        ),
        Route(
            "GET",
            "/v1/admin/users",
            list_accounts,
            "List accounts, disabled ones too, or find those of an e-mail address",
            auth=Auth.ADMIN,
            query={**paging(), "email": EMAIL},
            responses={200: page_schema(ADMIN)},
            tags=TAGS,
        ),
        Route(
            "PUT",
            "/v1/admin/users/{id}",
            update_account,
            "Disable an account, ending its sessions, or enable it again",
            auth=Auth.ADMIN,
            request=schema("disabled", disabled=FLAG),
            responses={200: ADMIN},
            tags=TAGS,
        ),
        Route(
            "POST",
            "/v1/admin/users/{id}/password",
            set_password,
            "Set a user's password; the user's sessions end, and what was encrypted for them is lost to them",
            auth=Auth.ADMIN,
            request=schema("password", password=PASSWORD | {"description": "the new password"}),
            responses={200: MESSAGE},
            tags=TAGS,
        ),
        Route(
            "DELETE",
            "/v1/admin/users/{id}/mfa",
            reset_mfa,
            "Take a user's second factor away, for one who has lost it",
            auth=Auth.ADMIN,
            responses={200: MESSAGE},
            tags=TAGS,
        ),
    ]
