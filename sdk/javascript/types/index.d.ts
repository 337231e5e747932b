export { CosmicSync } from "./client.js";
export { IndexedDbStore } from "./indexeddb-store.js";
export { MemoryStore } from "./memory-store.js";
export { Subscription } from "./realtime.js";
export { BadRequest, Closed, Conflict, CosmicSyncError, Forbidden, MfaRequired, NodeUnreachable, NotFound, NotOffered, PreconditionFailed, RateLimited, ServerFault, StoreInUse, Unauthorized } from "./errors.js";
