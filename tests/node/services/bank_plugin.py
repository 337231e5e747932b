# mypy: ignore-errors
"""A plugin for tests: a bank, as in the seed's "Custom Business Logic"."""

import civicnode


def ensure_positive_balance(data, context):
    if data["balance"] < 0:
        raise ValueError("Account balance cannot be negative")


def ensure_round(data, context):
    if data["balance"] % 5:
        raise ValueError("Must be a multiple of 5")


async def notify_on_low_balance(data, context):
    if data["balance"] < 100:
        had = context.previous["balance"]
        await context.create("Notice", {"text": f"{data['id']} has {data['balance']}, had {had}"})


def stamp(data, context):
    return {"note": f"opened by {context.user}"}


def keep(data, context):
    if data["balance"]:
        raise ValueError("An account with money in it stays")


def tell(data, context):
    context.create("Notice", {"text": f"{data['id']} is gone"})


def again(data, context):
    context.update("Loop", data["id"], {"n": data["n"] + 1})


async def below(context, balance):
    found = await context.query("UserAccount", {"balance": {"$lt": int(balance)}}, sort="id", order="asc")
    return [one["id"] for one in found]


def meddle(context):
    context.create("Notice", {"text": "from a query"})


def richest(localData, remoteData):
    return max(localData, remoteData, key=lambda record: record["balance"])


@civicnode.hookimpl
def validators():
    return [
        {"name": "ensurePositiveBalance", "model": "UserAccount", "validate": ensure_positive_balance},
        {"name": "ensureRound", "model": "UserAccount", "validate": ensure_round},
    ]


@civicnode.hookimpl
def triggers():
    return [
        {"name": name, "model": model, "event": event, "handler": handler}
        for name, model, event, handler in (
            ("notifyOnLowBalance", "UserAccount", "afterUpdate", notify_on_low_balance),
            ("stamp", "UserAccount", "beforeCreate", stamp),
            ("keep", "UserAccount", "beforeDelete", keep),
            ("tell", "UserAccount", "afterDelete", tell),
            ("again", "Loop", "afterUpdate", again),
        )
    ]


@civicnode.hookimpl
def queries():
    return [{"name": f.__name__, "model": "UserAccount", "query": f} for f in (below, meddle)]


@civicnode.hookimpl
def model_methods():
    return [{"model": "UserAccount", "methods": {"isRich": lambda record, context: record["balance"] > 1000}}]


@civicnode.hookimpl
def sync_strategies():
    return [{"name": "richest", "model": "Purse", "resolve": richest}]
