/** An instance as it is shown while actions wait. @param {Document | undefined} base @param {Action[]} actions @returns {Document | undefined} */
export function viewOf(base: Document | undefined, actions: Action[]): Document | undefined;
/** One store and one node. */
export class Offline {
    /**
     * @param {Store} store
     * @param {import('./transport.js').Transport} transport
     * @param {import('./data.js').Data} data
     * @param {import('./hooks.js').Hooks} hooks
     */
    constructor(store: Store, transport: import("./transport.js").Transport, data: import("./data.js").Data, hooks: import("./hooks.js").Hooks);
    store: import("./memory-store.js").Store;
    _transport: import("./transport.js").Transport;
    _data: import("./data.js").Data;
    _hooks: import("./hooks.js").Hooks;
    conflicts: Conflicts;
    /** @type {Promise<void> | undefined} */
    _opened: Promise<void> | undefined;
    /** @type {Promise<any>} */
    _turn: Promise<any>;
    /** @type {Set<{model: string, id?: string, hear: (change: LocalChange) => any}>} */
    _watchers: Set<{
        model: string;
        id?: string;
        hear: (change: LocalChange) => any;
    }>;
    /** @returns {Promise<Store>} @throws {Closed} */
    opened(): Promise<Store>;
    /** After the transport: a sync that runs ends with that, and what the node has not acknowledged stays in the store. */
    close(): Promise<void>;
    /** @param {string} model @param {string} id @param {Document} data @param {number} [ttl] milliseconds */
    put(model: string, id: string, data: Document, ttl?: number): Promise<void>;
    /** @param {Copy} copy */
    _keep(copy: Copy): Promise<void>;
    /** @param {string} model @param {string} id */
    _drop(model: string, id: string): Promise<void>;
    /** The instance as it is shown here: the copy, with what waits in the queue. @param {string} model @param {string} id @returns {Promise<any>} */
    get(model: string, id: string): Promise<any>;
    /**
     * Instances as they are shown here that meet a filter.
     *
     * @param {string} model @param {import('./filters.js').Filter | null} [filter] @param {LocalQueryOptions} [options]
     * @returns {Promise<any[]>}
     */
    query(model: string, filter?: import("./filters.js").Filter | null, { skip, limit, sort }?: LocalQueryOptions): Promise<any[]>;
    /** @param {string} model @param {string} id @returns {Promise<Copy | undefined>} */
    _copy(model: string, id: string): Promise<Copy | undefined>;
    /** @param {string} [owner] */
    clear(owner?: string): Promise<number>;
    /** @param {string} model @param {string | undefined} id @param {(change: LocalChange) => any} hear @returns {() => void} */
    watch(model: string, id: string | undefined, hear: (change: LocalChange) => any): () => void;
    /** @param {string} model @param {string} id @param {LocalChange['reason']} reason @param {CosmicSyncError} [error] */
    _tell(model: string, id: string, reason: LocalChange["reason"], error?: CosmicSyncError): Promise<void>;
    /** Bring a copy up to date, if there is one; undefined: the instance is deleted. @param {string} model @param {string} id @param {Document} [content] @returns {Promise<boolean>} whether there was another one */
    takeRemote(model: string, id: string, content?: Document): Promise<boolean>;
    /** @param {ActionGiven} given @returns {Promise<Action>} */
    queue({ type, modelId, instanceId, data, baseVersion }: ActionGiven): Promise<Action>;
    /** @returns {Promise<Action[]>} */
    actions(): Promise<Action[]>;
    /** @param {string} model @param {string} id */
    _waiting(model: string, id: string): Promise<Action[]>;
    /** @param {Action[]} actions */
    _put(actions: Action[]): Promise<void>;
    /** @param {Action} action */
    _remove(action: Action): Promise<void>;
    /** @param {string} id @returns {Promise<boolean>} */
    discard(id: string): Promise<boolean>;
    /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
    _inTurn<T>(work: () => Promise<T>): Promise<T>;
    /** While nobody sends, neither here nor in another tab: what is taken back must not be on its way. @template T @param {() => Promise<T>} work @returns {Promise<T>} */
    _alone<T>(work: () => Promise<T>): Promise<T>;
    /** @param {{waitForPeersMs?: number}} [options] @returns {Promise<SyncResult>} */
    sync({ waitForPeersMs }?: {
        waitForPeersMs?: number;
    }): Promise<SyncResult>;
    /** @param {SyncResult} result */
    _send(result: SyncResult): Promise<void>;
    /** The next actions in their order, noted as being sent. What was sent before, is sent as it was. @param {number} countMax */
    _nextBatch(countMax: number): Promise<{
        key: string;
        actions: Action[];
    } | undefined>;
    /** Those of a batch that still wait may be sent in another one. @param {string} key */
    _endBatch(key: string): Promise<void>;
    /** Why it is to be tried later, if it is. @param {Action} action @param {{status: number, body: any, version?: string}} answer @param {SyncResult} result */
    _settle(action: Action, { status, body, version }: {
        status: number;
        body: any;
        version?: string;
    }, result: SyncResult): Promise<CosmicSyncError | undefined>;
    /** The copy is what was sent, until the changes that follow tell what the node has. @param {Action} action @param {SyncResult} result @param {string} [version] @returns {Promise<undefined>} */
    _stored(action: Action, result: SyncResult, version?: string): Promise<undefined>;
    /** @param {Action} action @param {CosmicSyncError} refusal @param {SyncResult} result @returns {Promise<undefined>} */
    _refuse(action: Action, refusal: CosmicSyncError, result: SyncResult): Promise<undefined>;
    /** The instance is another one than the action was made on. @param {Action} action @param {CosmicSyncError} refusal @param {SyncResult} result @returns {Promise<undefined>} */
    _meet(action: Action, refusal: CosmicSyncError, result: SyncResult): Promise<undefined>;
    /** @param {string} id @param {any} resolution */
    resolve(id: string, resolution: any): Promise<any>;
    /** @param {SyncResult} result @param {number} waitMs */
    _withPeers(result: SyncResult, waitMs: number): Promise<void>;
    _catchUp(): Promise<number>;
    /**
     * @param {string | number | Date | null} [since]
     * @param {string} [model]
     * @param {() => void} [onFollowed] called for every copy that was brought up to date
     * @returns {Promise<Changes>}
     */
    partialSync(since?: string | number | Date | null, model?: string, onFollowed?: () => void): Promise<Changes>;
    /** What happened meanwhile is not known: every copy is asked for again, or those of some models. @param {string[]} [models] */
    readAnew(models?: string[]): Promise<void>;
    /** Those instances that are there, and that one may read. @param {string} model @param {string[]} ids @returns {Promise<Map<string, Document>>} */
    _readable(model: string, ids: string[]): Promise<Map<string, Document>>;
}
export type Document = import("./documents.js").Document;
export type ConflictTold = import("./conflicts.js").ConflictTold;
export type Store = import("./memory-store.js").Store;
/**
 * one queued write
 */
export type Action = {
    /**
     * its idempotency key, as long as `revision` is 0
     */
    id: string;
    /**
     * in the queue
     */
    place: number;
    user: string;
    type: "create" | "update" | "delete";
    modelId: string;
    instanceId: string;
    data: Document;
    /**
     * what the instance was when it was queued
     */
    base?: import("./documents.js").Document | undefined;
    baseVersion?: string | undefined;
    /**
     * epoch milliseconds
     */
    queuedAt: number;
    /**
     * how often it became another request than the one before
     */
    revision: number;
    /**
     * nobody else can have made an instance of this id
     */
    hasNewId: boolean;
    /**
     * the key under which it was last sent together with others
     */
    batch?: string | undefined;
    /**
     * what was found in the way, until it is resolved
     */
    conflict?: import("./conflicts.js").ConflictTold | undefined;
};
export type Copy = {
    modelId: string;
    instanceId: string;
    content: Document;
    storedAt: number;
    expiresAt?: number;
};
export type LocalQueryOptions = {
    skip?: number;
    limit?: number;
    sort?: Record<string, number>;
};
export type ActionGiven = {
    id?: string;
    type: "create" | "update" | "delete";
    modelId: string;
    instanceId?: string;
    data?: Document;
    baseVersion?: string;
};
/**
 * the local view of an instance is another one; without data, it is gone
 */
export type LocalChange = {
    modelId: string;
    instanceId: string;
    data: any;
    /**
     * queued; the node has it; the
     * node refused it; someone else's change came; the app's own doing
     */
    reason: "optimistic" | "confirmed" | "reverted" | "remote" | "stored" | "cleared";
    error?: CosmicSyncError | undefined;
};
export type SyncResult = {
    syncedCount: number;
    /**
     * to be ended by `resolveConflict`
     */
    conflicts: ConflictTold[];
    /**
     * what the node did not take in
     */
    refused: (Action & {
        error: CosmicSyncError;
    })[];
    sent: number;
    received: number;
    remaining: number;
    /**
     * no node was there; what waits stays
     */
    isOffline: boolean;
};
export type Changes = {
    syncedCount: number;
    changes: any[];
    conflicts: ConflictTold[];
    cursor: string;
    resync: boolean;
};
import { Conflicts } from './conflicts.js';
import { CosmicSyncError } from './errors.js';
