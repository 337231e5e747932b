/**
 * One node, one user, one local store.
 *
 * `cosmicSync.Project.someQuery(…)` is a registered query method, or one that a plugin of the node offers.
 */
export class CosmicSync {
    /** @param {Options} [options] */
    constructor(options?: Options);
    _options: Options;
    _transport: Transport;
    _hooks: Hooks;
    _data: Data;
    _offline: Offline;
    /** @type {Set<Subscription>} */
    _subscriptions: Set<Subscription>;
    /** @type {Map<string, {until: number, value: any}>} */
    _cached: Map<string, {
        until: number;
        value: any;
    }>;
    auth: Accounts;
    /** End subscriptions and whatever waits for the node, which throws `Closed`. Nothing more is sent; what is queued stays in the store. */
    close(): Promise<void>;
    /** What the last answer said of the rate. */
    get rateLimit(): import("./transport.js").RateLimit | undefined;
    /**
     * Any request of the node's API, with token, retries and errors as all others.
     *
     * @param {string} method @param {string} path @param {any} [body] @param {import('./transport.js').RequestOptions} [options]
     */
    request(method: string, path: string, body?: any, options?: import("./transport.js").RequestOptions): Promise<import("./transport.js").Answer>;
    /** Define a model, or add to it: `fields` (name to type or attributes), `indexes`, `conflict_strategy`, … @param {string} name @param {Record<string, any>} [definition] */
    defineModel(name: string, definition?: Record<string, any>): Promise<Record<string, any>>;
    /** A retry after a lost answer never makes two. @param {string} model @param {Document} data @param {WriteOptions} [options] */
    createInstance(model: string, data: Document, options?: WriteOptions): Promise<import("./data.js").Created>;
    /** @param {string} model @param {string} id @returns {Promise<any>} @throws {import('./errors.js').NotFound} */
    getInstance(model: string, id: string): Promise<any>;
    /** Change the given fields. @param {string} model @param {string} id @param {Document} updates @param {WriteOptions} [options] */
    updateInstance(model: string, id: string, updates: Document, options?: WriteOptions): Promise<{
        id: string;
        version?: string;
        message: string;
        heldByPeers?: number;
    }>;
    /** @param {string} model @param {string} id @param {WriteOptions} [options] */
    deleteInstance(model: string, id: string, options?: WriteOptions): Promise<void>;
    /** Instances that meet a filter, MongoDB's or the node's own text; all without `limit`. @param {string} model @param {import('./filters.js').Filter | string | null} [filter] @param {QueryOptions} [options] */
    query(model: string, filter?: import("./filters.js").Filter | string | null, options?: QueryOptions): Promise<any[]>;
    /** `group_by`, `aggregations`, `filter`: one row for each group. @param {string} model @param {Record<string, any>} aggregation */
    aggregate(model: string, aggregation: Record<string, any>): Promise<Record<string, any>[]>;
    /** All of the updates, or none. @param {import('./data.js').Update[]} updates */
    batchUpdate(updates: import("./data.js").Update[]): Promise<{
        status: number;
        body: any;
        version?: string;
    }[]>;
    /** Operations as `POST /v1/batch` takes them. @param {import('./data.js').Operation[]} operations @param {{atomic?: boolean, versions?: boolean}} [options] */
    batch(operations: import("./data.js").Operation[], options?: {
        atomic?: boolean;
        versions?: boolean;
    }): Promise<{
        status: number;
        body: any;
        version?: string;
    }[]>;
    /** Keep a copy here, for `ttl` milliseconds or for good. @param {string} model @param {string} id @param {Document} data @param {{ttl?: number}} [options] */
    storeLocally(model: string, id: string, data: Document, { ttl }?: {
        ttl?: number;
    }): Promise<void>;
    /** The local copy, with what waits in the queue applied; null if there is none, or its time is over. @param {string} model @param {string} id @returns {Promise<any>} */
    getLocalData(model: string, id: string): Promise<any>;
    /** The local copies that meet a filter, with what waits in the queue applied: no node is asked. @param {string} model @param {import('./filters.js').Filter | null} [filter] @param {import('./offline.js').LocalQueryOptions} [options] @returns {Promise<any[]>} */
    queryLocal(model: string, filter?: import("./filters.js").Filter | null, options?: import("./offline.js").LocalQueryOptions): Promise<any[]>;
    /** Forget local copies: all, or those of the user or instance of this id. The queue stays. @param {string} [owner] @returns {Promise<number>} */
    clearLocalData(owner?: string): Promise<number>;
    /** Hear whenever the local view changes: when an action is queued, and when the node has taken it in or refused it. @param {string} model @param {(change: LocalChange) => any} watcher @param {{id?: string}} [options] @returns {() => void} ends it */
    watchLocal(model: string, watcher: (change: LocalChange) => any, { id }?: {
        id?: string;
    }): () => void;
    /** Queue a write; it survives restart and crash, and the local view shows it at once. @param {import('./offline.js').ActionGiven} action */
    queueOfflineAction(action: import("./offline.js").ActionGiven): Promise<import("./offline.js").Action>;
    /** What waits, in the order in which it is sent. */
    getQueuedActions(): Promise<import("./offline.js").Action[]>;
    /** Take an action back that waits. @param {string} id @returns {Promise<boolean>} false if there is none */
    discardQueuedAction(id: string): Promise<boolean>;
    /** Send what is queued, let the node sync with its peers, bring local copies up to date. No node is no error: `isOffline` says so. @param {{waitForPeersMs?: number}} [options] */
    sync(options?: {
        waitForPeersMs?: number;
    }): Promise<import("./offline.js").SyncResult>;
    /** All changes since a time or a cursor, or since the last time; local copies follow them. @param {string | number | Date | null} [since] @param {{model?: string}} [options] */
    partialSync(since?: string | number | Date | null, { model }?: {
        model?: string;
    }): Promise<import("./offline.js").Changes>;
    /** What `fetch` gave for this key not longer than `ttl` milliseconds ago, or gives now. In memory. @template T @param {string} key @param {() => T | Promise<T>} fetch @param {number} [ttl] @returns {Promise<T>} */
    getCachedData<T>(key: string, fetch: () => T | Promise<T>, ttl?: number): Promise<T>;
    /**
     * A function `(local, remote, ancestor) => instance` that decides here, or the name of a strategy by which every node
     * does (`lww`, `merge`, `three_way`, …).
     *
     * @param {string} model @param {Resolver | string} resolver @returns {Promise<void>}
     */
    setConflictResolver(model: string, resolver: Resolver | string): Promise<void>;
    /** End a conflict that `sync` told of: with an instance, some fields, or `local` or `remote`. @param {string} id @param {any} resolution */
    resolveConflict(id: string, resolution: any): Promise<any>;
    /** The node's open conflicts. @param {string} [model] @returns {Promise<import('./conflicts.js').ConflictTold[]>} */
    getConflicts(model?: string): Promise<import("./conflicts.js").ConflictTold[]>;
    /** What two versions of an instance came from, where that is known. Meant for resolvers. @param {string} localId @param {string} [remoteId] @returns {Promise<any>} */
    getCommonAncestor(localId: string, remoteId?: string): Promise<any>;
    /** `validate(data, context)` runs before each create and update of a model, and throws to prevent it. @param {{name?: string, model: string, validate: Hook}} validator */
    registerValidator({ model, validate }: {
        name?: string;
        model: string;
        validate: Hook;
    }): void;
    /** `handler(data, context)` runs at `beforeCreate`, `afterUpdate`, … @param {{name?: string, model: string, event: string, handler: Hook}} trigger */
    registerTrigger({ model, event, handler }: {
        name?: string;
        model: string;
        event: string;
        handler: Hook;
    }): void;
    /** Call it as `cosmicSync.Project.name(…)` or `cosmicSync.model('Project').name(…)`. @param {{name: string, model: string, query: Function}} method */
    registerQueryMethod({ name, model, query }: {
        name: string;
        model: string;
        query: Function;
    }): void;
    /** Methods and accessors for the instances of a model; `this` is the instance. @param {string} model @param {object} methods */
    extendModel(model: string, methods: object): void;
    /** A resolver by the name that it has among business logic. @param {{name?: string, model: string, resolve: Resolver}} strategy */
    registerSyncStrategy({ model, resolve }: {
        name?: string;
        model: string;
        resolve: Resolver;
    }): void;
    /**
     * The query methods of a model: those registered here, and those of the node's plugins, which take their parameters
     * as one object: `cosmicSync.Project.activeProjects({ user: 'user_123' })`.
     *
     * @param {string} name @returns {any}
     */
    model(name: string): any;
    /** A method that a plugin of the node has for the instances of a model. @param {string} model @param {string} id @param {string} method @param {Record<string, any>} [parameters] @returns {Promise<any>} */
    callMethod(model: string, id: string, method: string, parameters?: Record<string, any>): Promise<any>;
    /** A GraphQL query or mutation. @param {string} query @param {Record<string, any>} [variables] @returns {Promise<any>} its `data` @throws {import('./errors.js').BadRequest} with the first of its errors, all of them in `body` */
    graphql(query: string, variables?: Record<string, any>): Promise<any>;
    /**
     * Hear of changes, through lost links and restarts of the node. Iterate over it with `for await`, or give a handler.
     *
     * @param {string | string[]} models
     * @param {((event: import('./realtime.js').RealtimeEvent) => any) | null} [handler]
     * @param {import('./realtime.js').SubscribeOptions} [options]
     * @returns {Promise<Subscription>}
     */
    subscribe(models: string | string[], handler?: ((event: import("./realtime.js").RealtimeEvent) => any) | null, options?: import("./realtime.js").SubscribeOptions): Promise<Subscription>;
    /**
     * Let peers hear of deletions now. With `erase`, have the account and all that it made removed from every device, for
     * ever; `GET /v1/privacy/erasures/{erasure_id}` tells which devices have confirmed it.
     *
     * @param {string} userId @param {{erase?: boolean, password?: string}} [options]
     * @returns {Promise<{userId: string, inSync: boolean, peers: number, erasure_id?: string}>} `inSync`: every linked peer has them
     */
    notifyPeerDeletion(userId: string, { erase, password }?: {
        erase?: boolean;
        password?: string;
    }): Promise<{
        userId: string;
        inSync: boolean;
        peers: number;
        erasure_id?: string;
    }>;
    /** Have this node tell a web address of events (`data.updated`, `Task.created`, …). @param {{url: string, events: string[], secret: string}} webhook @returns {Promise<Record<string, any>>} with its `id` */
    registerWebhook(webhook: {
        url: string;
        events: string[];
        secret: string;
    }): Promise<Record<string, any>>;
    /** The records that one may read: of `json` the object, of other formats the text. @param {{models?: string[], format?: string}} [options] @returns {Promise<any>} */
    exportData(options?: {
        models?: string[];
        format?: string;
    }): Promise<any>;
    /** Records in any form that an export has. @param {string | Blob} content @param {{model?: string, format?: string, mode?: string}} [options] @returns {Promise<{rows: number, created: number, updated: number, failed: number, faults: any[]}>} */
    importData(content: string | Blob, { model, format, mode }?: {
        model?: string;
        format?: string;
        mode?: string;
    }): Promise<{
        rows: number;
        created: number;
        updated: number;
        failed: number;
        faults: any[];
    }>;
}
export type Document = import("./documents.js").Document;
export type QueryOptions = import("./data.js").QueryOptions;
export type WriteOptions = import("./data.js").WriteOptions;
export type Hook = import("./hooks.js").Hook;
export type Resolver = import("./hooks.js").Resolver;
export type Store = import("./memory-store.js").Store;
export type LocalChange = import("./offline.js").LocalChange;
export type Options = {
    /**
     * of the node; `http://127.0.0.1:8080` without it
     */
    url?: string | undefined;
    /**
     * of a sign-in, or the owner's
     */
    token?: string | undefined;
    /**
     * what keeps queue and local copies; in browsers IndexedDB without it, else memory
     */
    store?: import("./memory-store.js").Store | undefined;
    application?: string | undefined;
    /**
     * for one answer
     */
    timeoutMs?: number | undefined;
    /**
     * how long to wait by itself when asked to; a longer wait is an error
     */
    rateLimitWaitMaxMs?: number | undefined;
    /**
     * hears of every change of them
     */
    onTokens?: ((tokens: import("./transport.js").Tokens | undefined) => void) | undefined;
    /**
     * hears what fails when it is too late to prevent anything
     */
    onError?: ((error: unknown) => void) | undefined;
    fetch?: typeof fetch | undefined;
    /**
     * a class to use in place of the platform's; false for server-sent events
     */
    WebSocket?: any;
};
import { Transport } from './transport.js';
import { Hooks } from './hooks.js';
import { Data } from './data.js';
import { Offline } from './offline.js';
import { Subscription } from './realtime.js';
import { Accounts } from './accounts.js';
