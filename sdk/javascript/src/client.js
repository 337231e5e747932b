/**
 * `CosmicSync`: everything an app asks of its node, under the names of CivicBase's examples.
 *
 * Room: the face of this library. Each method says what it takes and gives back; the work is done by `data`,
 * `offline`, `accounts` and `realtime`.
 */

import { Accounts } from './accounts.js';
import { Data } from './data.js';
import { Closed } from './errors.js';
import { Hooks } from './hooks.js';
import { IndexedDbStore } from './indexeddb-store.js';
import { MemoryStore } from './memory-store.js';
import { Offline } from './offline.js';
import { Subscription } from './realtime.js';
import { Transport } from './transport.js';

/** @typedef {import('./documents.js').Document} Document */
/** @typedef {import('./data.js').QueryOptions} QueryOptions */
/** @typedef {import('./data.js').WriteOptions} WriteOptions */
/** @typedef {import('./hooks.js').Hook} Hook */
/** @typedef {import('./hooks.js').Resolver} Resolver */
/** @typedef {import('./memory-store.js').Store} Store */
/** @typedef {import('./offline.js').LocalChange} LocalChange */
/**
 * @typedef {object} Options
 * @property {string} [url] of the node; `http://127.0.0.1:8080` without it
 * @property {string} [token] of a sign-in, or the owner's
 * @property {Store} [store] what keeps queue and local copies; in browsers IndexedDB without it, else memory
 * @property {string} [application]
 * @property {number} [timeoutMs] for one answer
 * @property {number} [rateLimitWaitMaxMs] how long to wait by itself when asked to; a longer wait is an error
 * @property {(tokens: import('./transport.js').Tokens | undefined) => void} [onTokens] hears of every change of them
 * @property {(error: unknown) => void} [onError] hears what fails when it is too late to prevent anything
 * @property {typeof fetch} [fetch]
 * @property {any} [WebSocket] a class to use in place of the platform's; false for server-sent events
 */

const CACHE_FOR_MS = 60_000;
const CACHED_MAX = 10_000;

/**
 * One node, one user, one local store.
 *
 * `cosmicSync.Project.someQuery(…)` is a registered query method, or one that a plugin of the node offers.
 */
export class CosmicSync {
  /** @param {Options} [options] */
  constructor(options = {}) {
    const store = options.store ?? (globalThis.indexedDB ? new IndexedDbStore() : new MemoryStore());
    this._options = options;
    this._transport = new Transport({ ...options, url: options.url ?? 'http://127.0.0.1:8080' });
    this._hooks = new Hooks(options.onError ?? ((error) => console.error(error)));
    /** @type {any} */
    const shown = new Proxy(this, { get: member });
    this._data = new Data(this._transport, this._hooks, () => shown);
    this._offline = new Offline(store, this._transport, this._data, this._hooks);
    /** @type {Set<Subscription>} */
    this._subscriptions = new Set();
    /** @type {Map<string, {until: number, value: any}>} */
    this._cached = new Map();
    this.auth = new Accounts(this._transport);
    return shown;
  }

  /** End subscriptions and whatever waits for the node, which throws `Closed`. Nothing more is sent; what is queued stays in the store. */
  async close() {
    this._transport.close();
    await Promise.all([...this._subscriptions].map((subscription) => subscription.close()));
    await this._offline.close();
  }

  /** What the last answer said of the rate. */
  get rateLimit() {
    return this._transport.rateLimit;
  }

  /**
   * Any request of the node's API, with token, retries and errors as all others.
   *
   * @param {string} method @param {string} path @param {any} [body] @param {import('./transport.js').RequestOptions} [options]
   */
  request(method, path, body, options) {
    return this._transport.ask(method, path, body, options);
  }

  // -- models and instances

  /** Define a model, or add to it: `fields` (name to type or attributes), `indexes`, `conflict_strategy`, … @param {string} name @param {Record<string, any>} [definition] */
  defineModel(name, definition = {}) {
    return this._data.defineModel(name, definition);
  }

  /** A retry after a lost answer never makes two. @param {string} model @param {Document} data @param {WriteOptions} [options] */
  createInstance(model, data, options) {
    return this._data.create(model, data, options);
  }

  /** @param {string} model @param {string} id @returns {Promise<any>} @throws {import('./errors.js').NotFound} */
  async getInstance(model, id) {
    const found = await this._data.get(model, id);
    await this._offline.takeRemote(model, id, found);
    return found;
  }

  /** Change the given fields. @param {string} model @param {string} id @param {Document} updates @param {WriteOptions} [options] */
  updateInstance(model, id, updates, options) {
    return this._data.update(model, id, updates, options);
  }

  /** @param {string} model @param {string} id @param {WriteOptions} [options] */
  async deleteInstance(model, id, options) {
    await this._data.delete(model, id, options);
    await this._offline.takeRemote(model, id, undefined);
  }

  /** Instances that meet a filter, MongoDB's or the node's own text; all without `limit`. @param {string} model @param {import('./filters.js').Filter | string | null} [filter] @param {QueryOptions} [options] */
  query(model, filter, options) {
    return this._data.query(model, filter, options);
  }

  /** `group_by`, `aggregations`, `filter`: one row for each group. @param {string} model @param {Record<string, any>} aggregation */
  aggregate(model, aggregation) {
    return this._data.aggregate(model, aggregation);
  }

  /** All of the updates, or none. @param {import('./data.js').Update[]} updates */
  batchUpdate(updates) {
    return this._data.batchUpdate(updates);
  }

  /** Operations as `POST /v1/batch` takes them. @param {import('./data.js').Operation[]} operations @param {{atomic?: boolean, versions?: boolean}} [options] */
  batch(operations, options) {
    return this._data.batch(operations, options);
  }

  // -- offline

  /** Keep a copy here, for `ttl` milliseconds or for good. @param {string} model @param {string} id @param {Document} data @param {{ttl?: number}} [options] */
  storeLocally(model, id, data, { ttl } = {}) {
    return this._offline.put(model, id, data, ttl);
  }

  /** The local copy, with what waits in the queue applied; null if there is none, or its time is over. @param {string} model @param {string} id @returns {Promise<any>} */
  async getLocalData(model, id) {
    return (await this._offline.get(model, id)) ?? null;
  }

  /** The local copies that meet a filter, with what waits in the queue applied: no node is asked. @param {string} model @param {import('./filters.js').Filter | null} [filter] @param {import('./offline.js').LocalQueryOptions} [options] @returns {Promise<any[]>} */
  queryLocal(model, filter, options) {
    return this._offline.query(model, filter, options);
  }

  /** Forget local copies: all, or those of the user or instance of this id. The queue stays. @param {string} [owner] @returns {Promise<number>} */
  clearLocalData(owner) {
    return this._offline.clear(owner);
  }

  /** Hear whenever the local view changes: when an action is queued, and when the node has taken it in or refused it. @param {string} model @param {(change: LocalChange) => any} watcher @param {{id?: string}} [options] @returns {() => void} ends it */
  watchLocal(model, watcher, { id } = {}) {
    return this._offline.watch(model, id, watcher);
  }

  /** Queue a write; it survives restart and crash, and the local view shows it at once. @param {import('./offline.js').ActionGiven} action */
  queueOfflineAction(action) {
    return this._offline.queue(action);
  }

  /** What waits, in the order in which it is sent. */
  getQueuedActions() {
    return this._offline.actions();
  }

  /** Take an action back that waits. @param {string} id @returns {Promise<boolean>} false if there is none */
  discardQueuedAction(id) {
    return this._offline.discard(id);
  }

  /** Send what is queued, let the node sync with its peers, bring local copies up to date. No node is no error: `isOffline` says so. @param {{waitForPeersMs?: number}} [options] */
  sync(options) {
    return this._offline.sync(options);
  }

  /** All changes since a time or a cursor, or since the last time; local copies follow them. @param {string | number | Date | null} [since] @param {{model?: string}} [options] */
  partialSync(since, { model } = {}) {
    return this._offline.partialSync(since, model);
  }

  /** What `fetch` gave for this key not longer than `ttl` milliseconds ago, or gives now. In memory. @template T @param {string} key @param {() => T | Promise<T>} fetch @param {number} [ttl] @returns {Promise<T>} */
  async getCachedData(key, fetch, ttl = CACHE_FOR_MS) {
    const known = this._cached.get(key);
    if (known && known.until > Date.now()) return known.value;
    const value = await fetch();
    if (this._cached.size >= CACHED_MAX) this._cached.clear();
    this._cached.set(key, { until: Date.now() + ttl, value });
    return value;
  }

  // -- conflicts

  /**
   * A function `(local, remote, ancestor) => instance` that decides here, or the name of a strategy by which every node
   * does (`lww`, `merge`, `three_way`, …).
   *
   * @param {string} model @param {Resolver | string} resolver @returns {Promise<void>}
   */
  async setConflictResolver(model, resolver) {
    if (typeof resolver === 'function') this._hooks.resolvers.set(model, resolver);
    else await this._data.defineModel(model, { conflict_strategy: resolver });
  }

  /** End a conflict that `sync` told of: with an instance, some fields, or `local` or `remote`. @param {string} id @param {any} resolution */
  resolveConflict(id, resolution) {
    return this._offline.resolve(id, resolution);
  }

  /** The node's open conflicts. @param {string} [model] @returns {Promise<import('./conflicts.js').ConflictTold[]>} */
  async getConflicts(model) {
    const query = { model, per_page: '100' };
    return (await this._transport.ask('GET', '/v1/conflicts', undefined, { query })).body.items;
  }

  /** What two versions of an instance came from, where that is known. Meant for resolvers. @param {string} localId @param {string} [remoteId] @returns {Promise<any>} */
  async getCommonAncestor(localId, remoteId = localId) {
    return (localId === remoteId ? await this._offline.conflicts.ancestor(localId) : undefined) ?? null;
  }

  // -- business logic

  /** `validate(data, context)` runs before each create and update of a model, and throws to prevent it. @param {{name?: string, model: string, validate: Hook}} validator */
  registerValidator({ model, validate }) {
    this._hooks.addValidator(model, validate);
  }

  /** `handler(data, context)` runs at `beforeCreate`, `afterUpdate`, … @param {{name?: string, model: string, event: string, handler: Hook}} trigger */
  registerTrigger({ model, event, handler }) {
    this._hooks.addTrigger(model, event, handler);
  }

  /** Call it as `cosmicSync.Project.name(…)` or `cosmicSync.model('Project').name(…)`. @param {{name: string, model: string, query: Function}} method */
  registerQueryMethod({ name, model, query }) {
    this._hooks.addQuery(model, name, query);
  }

  /** Methods and accessors for the instances of a model; `this` is the instance. @param {string} model @param {object} methods */
  extendModel(model, methods) {
    this._hooks.extend(model, methods);
  }

  /** A resolver by the name that it has among business logic. @param {{name?: string, model: string, resolve: Resolver}} strategy */
  registerSyncStrategy({ model, resolve }) {
    this._hooks.resolvers.set(model, resolve);
  }

  /**
   * The query methods of a model: those registered here, and those of the node's plugins, which take their parameters
   * as one object: `cosmicSync.Project.activeProjects({ user: 'user_123' })`.
   *
   * @param {string} name @returns {any}
   */
  model(name) {
    const ask = (/** @type {string} */ method) => (/** @type {Record<string, any>} */ parameters = {}) =>
      this._data.namedQuery(name, method, parameters);
    return new Proxy(Object.create(null), {
      get: (_, method) => {
        if (typeof method !== 'string' || method === 'then') return undefined; // it is no promise
        return this._hooks.queries.get(name)?.get(method) ?? ask(method);
      },
    });
  }

  /** A method that a plugin of the node has for the instances of a model. @param {string} model @param {string} id @param {string} method @param {Record<string, any>} [parameters] @returns {Promise<any>} */
  callMethod(model, id, method, parameters) {
    return this._data.callMethod(model, id, method, parameters);
  }

  /** A GraphQL query or mutation. @param {string} query @param {Record<string, any>} [variables] @returns {Promise<any>} its `data` @throws {import('./errors.js').BadRequest} with the first of its errors, all of them in `body` */
  graphql(query, variables) {
    return this._data.graphql(query, variables);
  }

  // -- realtime

  /**
   * Hear of changes, through lost links and restarts of the node. Iterate over it with `for await`, or give a handler.
   *
   * @param {string | string[]} models
   * @param {((event: import('./realtime.js').RealtimeEvent) => any) | null} [handler]
   * @param {import('./realtime.js').SubscribeOptions} [options]
   * @returns {Promise<Subscription>}
   */
  async subscribe(models, handler, options = {}) {
    const note = `cursor:${options.durable}`;
    let { cursor } = options;
    /** @type {((position: string) => Promise<void>) | undefined} */
    let onCursor;
    if (options.durable !== undefined) {
      const store = await this._offline.opened();
      cursor ??= await store.get('note', note);
      onCursor = (position) => store.write([{ table: 'note', key: note, value: position }]);
    }
    const named = [models].flat();
    const onResync = handler ? () => this._offline.readAnew(named) : undefined;
    const asked = { ...options, cursor, onCursor, onResync, WebSocket: this._options.WebSocket };
    const subscription = new Subscription(this._transport, named, asked);
    this._subscriptions.add(subscription);
    if (handler) {
      subscription.run(async (event) => {
        try {
          if (['create', 'update', 'delete'].includes(event.type)) {
            await this._offline.takeRemote(event.model, event.instanceId, event.data);
          }
          await handler(event);
        } catch (error) {
          if (error instanceof Closed) throw error; // it was not heard to the end: a durable one hears it again
          this._hooks.onError(error);
        }
      }, this._hooks.onError);
    }
    return subscription;
  }

  // -- peers

  /**
   * Let peers hear of deletions now. With `erase`, have the account and all that it made removed from every device, for
   * ever; `GET /v1/privacy/erasures/{erasure_id}` tells which devices have confirmed it.
   *
   * @param {string} userId @param {{erase?: boolean, password?: string}} [options]
   * @returns {Promise<{userId: string, inSync: boolean, peers: number, erasure_id?: string}>} `inSync`: every linked peer has them
   */
  async notifyPeerDeletion(userId, { erase = false, password } = {}) {
    const asked = { confirm: true, user_id: userId, password };
    const told = erase ? (await this._transport.ask('POST', '/v1/privacy/erase', asked)).body : {};
    const query = { timeout_ms: '2000' };
    await this._transport.ask('POST', '/v1/sync', undefined, { query, isRepeatable: true });
    const { body } = await this._transport.ask('GET', '/v1/sync/status');
    return { ...told, userId, inSync: body.in_sync, peers: body.peers.length };
  }

  /** Have this node tell a web address of events (`data.updated`, `Task.created`, …). @param {{url: string, events: string[], secret: string}} webhook @returns {Promise<Record<string, any>>} with its `id` */
  async registerWebhook(webhook) {
    return (await this._transport.ask('POST', '/v1/webhooks', webhook)).body;
  }

  // -- files

  /** The records that one may read: of `json` the object, of other formats the text. @param {{models?: string[], format?: string}} [options] @returns {Promise<any>} */
  async exportData(options = {}) {
    return (await this._transport.ask('POST', '/v1/export', options, { isRepeatable: true })).body;
  }

  /** Records in any form that an export has. @param {string | Blob} content @param {{model?: string, format?: string, mode?: string}} [options] @returns {Promise<{rows: number, created: number, updated: number, failed: number, faults: any[]}>} */
  async importData(content, { model, format = 'json', mode = 'create' } = {}) {
    const form = new FormData();
    for (const [name, value] of Object.entries({ model, format, mode })) if (value !== undefined) form.set(name, value);
    form.set('file', typeof content === 'string' ? new Blob([content]) : content, `records.${format}`);
    return (await this._transport.ask('POST', '/v1/import', form)).body;
  }
}

/** Members of a client; a name with a capital that it has not is a model. @param {CosmicSync} client @param {string | symbol} name */
function member(client, name) {
  const value = Reflect.get(client, name, client);
  if (value === undefined && typeof name === 'string' && /^[A-Z]/.test(name)) return client.model(name);
  return typeof value === 'function' && name !== 'constructor' ? value.bind(client) : value;
}
