"""The models that the program itself defines, for every application.

Room: the list. Each is defined beside the service that owns it.
"""

from node.services.account_models import account_models
from node.services.devices import node_model
from node.services.privacy_models import privacy_models
from protocol.schema import Model
from storage.catalog import definition_models


def builtin_models() -> tuple[Model, ...]:
    """Templates, to be handed to `Catalog.add_builtin`; their ids and applications are filled in there."""
    return *definition_models(), *account_models(""), node_model(""), *privacy_models("")
