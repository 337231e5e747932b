"""cosmicsync: the Python client of civicnode, with an offline queue and the names of CivicBase's `cosmicSync`."""

from cosmicsync.blocking import CosmicSync
from cosmicsync.client import AsyncCosmicSync
from cosmicsync.documents import Document
from cosmicsync.errors import (
    BadRequest,
    Closed,
    Conflict,
    CosmicSyncError,
    Forbidden,
    MfaRequired,
    NodeUnreachable,
    NotFound,
    NotOffered,
    PreconditionFailed,
    RateLimited,
    ServerFault,
    StoreInUse,
    Unauthorized,
)
from cosmicsync.hooks import Context
from cosmicsync.offline import Changes, LocalChange, SyncResult
from cosmicsync.realtime import Subscription
from cosmicsync.transport import Tokens

__all__ = [
    "AsyncCosmicSync",
    "BadRequest",
    "Changes",
    "Closed",
    "Conflict",
    "Context",
    "CosmicSync",
    "CosmicSyncError",
    "Document",
    "Forbidden",
    "LocalChange",
    "MfaRequired",
    "NodeUnreachable",
    "NotFound",
    "NotOffered",
    "PreconditionFailed",
    "RateLimited",
    "ServerFault",
    "StoreInUse",
    "Subscription",
    "SyncResult",
    "Tokens",
    "Unauthorized",
]
