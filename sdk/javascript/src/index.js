/** cosmicsync: the JavaScript client of civicnode, with an offline queue and the names of CivicBase's `cosmicSync`. */

export { CosmicSync } from './client.js';
export {
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
} from './errors.js';
export { IndexedDbStore } from './indexeddb-store.js';
export { MemoryStore } from './memory-store.js';
export { Subscription } from './realtime.js';
