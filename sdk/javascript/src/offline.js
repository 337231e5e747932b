/**
 * Working without a node: the queue of actions, local copies, and what happens when both meet again.
 *
 * Room: what is shown here while a write waits, in which order writes are sent, and what becomes of one that the node
 * refuses or that met another change. Keeping is the store's, meetings of two versions are `conflicts`'.
 *
 *     queued ──sent──► stored       the local copy is the node's again
 *        │  ├─refused─► reverted    the local view goes back, watchers are told
 *        │  └─another version was there─► merged and sent again, or a conflict that waits for `resolveConflict`
 *        └─no node──► stays, in its place
 */

import { Conflicts } from './conflicts.js';
import { pathOf } from './data.js';
import { ModelShape, asJson, fieldsOf, isSame, newKey, toJson } from './documents.js';
import { Closed, CosmicSyncError, Forbidden, NodeUnreachable, NotFound, errorOf } from './errors.js';
import { check, inOrder, matches, sortKeys } from './filters.js';

/** @typedef {import('./documents.js').Document} Document */
/** @typedef {import('./conflicts.js').ConflictTold} ConflictTold */
/** @typedef {import('./memory-store.js').Store} Store */
/**
 * @typedef {object} Action one queued write
 * @property {string} id its idempotency key, as long as `revision` is 0
 * @property {number} place in the queue
 * @property {string} user
 * @property {'create' | 'update' | 'delete'} type
 * @property {string} modelId
 * @property {string} instanceId
 * @property {Document} data
 * @property {Document} [base] what the instance was when it was queued
 * @property {string} [baseVersion]
 * @property {number} queuedAt epoch milliseconds
 * @property {number} revision how often it became another request than the one before
 * @property {boolean} hasNewId nobody else can have made an instance of this id
 * @property {string} [batch] the key under which it was last sent together with others
 * @property {ConflictTold} [conflict] what was found in the way, until it is resolved
 */
/** @typedef {{modelId: string, instanceId: string, content: Document, storedAt: number, expiresAt?: number}} Copy */
/** @typedef {{skip?: number, limit?: number, sort?: Record<string, number>}} LocalQueryOptions */
/** @typedef {{id?: string, type: 'create' | 'update' | 'delete', modelId: string, instanceId?: string, data?: Document, baseVersion?: string}} ActionGiven */
/**
 * @typedef {object} LocalChange the local view of an instance is another one; without data, it is gone
 * @property {string} modelId
 * @property {string} instanceId
 * @property {any} data
 * @property {'optimistic' | 'confirmed' | 'reverted' | 'remote' | 'stored' | 'cleared'} reason queued; the node has it; the
 *   node refused it; someone else's change came; the app's own doing
 * @property {CosmicSyncError} [error]
 */
/**
 * @typedef {object} SyncResult
 * @property {number} syncedCount
 * @property {ConflictTold[]} conflicts to be ended by `resolveConflict`
 * @property {(Action & {error: CosmicSyncError})[]} refused what the node did not take in
 * @property {number} sent
 * @property {number} received
 * @property {number} remaining
 * @property {boolean} isOffline no node was there; what waits stays
 */
/** @typedef {{syncedCount: number, changes: any[], conflicts: ConflictTold[], cursor: string, resync: boolean}} Changes */

const BATCH_MAX = 100; // actions in one request
const BATCH_SIZE_MAX = 1 << 20;
const PAGE = '1000'; // changes asked for at a time
const CHUNK = 50; // copies read anew at a time
const CURSOR = 'cursor';
const METHODS = { create: 'POST', update: 'PUT', delete: 'DELETE' };

/** @param {string} model @param {string} id */
const keyOf = (model, id) => JSON.stringify([model, id]);

/** An instance as it is shown while actions wait. @param {Document | undefined} base @param {Action[]} actions @returns {Document | undefined} */
export function viewOf(base, actions) {
  let shown = base && { ...base };
  for (const { type, instanceId, data } of actions) {
    shown = type === 'delete' ? undefined : { id: instanceId, ...shown, ...data };
  }
  return shown;
}

/** One store and one node. */
export class Offline {
  /**
   * @param {Store} store
   * @param {import('./transport.js').Transport} transport
   * @param {import('./data.js').Data} data
   * @param {import('./hooks.js').Hooks} hooks
   */
  constructor(store, transport, data, hooks) {
    this.store = store;
    this._transport = transport;
    this._data = data;
    this._hooks = hooks;
    this.conflicts = new Conflicts(transport, hooks);
    /** @type {Promise<void> | undefined} */
    this._opened = undefined;
    /** @type {Promise<any>} */
    this._turn = Promise.resolve();
    /** @type {Set<{model: string, id?: string, hear: (change: LocalChange) => any}>} */
    this._watchers = new Set();
  }

  /** @returns {Promise<Store>} @throws {Closed} */
  async opened() {
    if (this._transport.isClosed) throw new Closed();
    this._opened ??= this.store.open().catch((error) => {
      this._opened = undefined;
      throw error;
    });
    await this._opened;
    if (this._transport.isClosed) throw new Closed(); // meanwhile: what is still under way writes nothing any more
    return this.store;
  }

  /** After the transport: a sync that runs ends with that, and what the node has not acknowledged stays in the store. */
  async close() {
    if (this._opened) await this._opened.then(() => this.store.close(), () => {});
  }

  // -- local copies

  /** @param {string} model @param {string} id @param {Document} data @param {number} [ttl] milliseconds */
  async put(model, id, data, ttl) {
    const storedAt = Date.now();
    const expiresAt = ttl === undefined ? undefined : storedAt + ttl;
    await this._keep({ modelId: model, instanceId: id, content: asJson({ id, ...data }), storedAt, expiresAt });
    await this._tell(model, id, 'stored');
  }

  /** @param {Copy} copy */
  async _keep(copy) {
    const store = await this.opened();
    await store.write([{ table: 'local', key: keyOf(copy.modelId, copy.instanceId), value: copy }]);
  }

  /** @param {string} model @param {string} id */
  async _drop(model, id) {
    await (await this.opened()).write([{ table: 'local', key: keyOf(model, id) }]);
  }

  /** The instance as it is shown here: the copy, with what waits in the queue. @param {string} model @param {string} id @returns {Promise<any>} */
  async get(model, id) {
    const shown = viewOf((await this._copy(model, id))?.content, await this._waiting(model, id));
    return shown && this._hooks.document(model, shown);
  }

  /**
   * Instances as they are shown here that meet a filter.
   *
   * @param {string} model @param {import('./filters.js').Filter | null} [filter] @param {LocalQueryOptions} [options]
   * @returns {Promise<any[]>}
   */
  async query(model, filter, { skip = 0, limit = Infinity, sort } = {}) {
    check(filter ?? {});
    const shape = new ModelShape(model); // without a node, values alone say what they are
    const keys = sortKeys(sort, shape);
    /** @type {Copy[]} */
    const copies = await (await this.opened()).all('local');
    const now = Date.now();
    /** @type {Map<string, Document | undefined>} */
    const shown = new Map();
    for (const { modelId, instanceId, content, expiresAt = Infinity } of copies) {
      if (modelId === model && expiresAt > now) shown.set(instanceId, content);
    }
    for (const action of await this.actions()) {
      if (action.modelId === model) shown.set(action.instanceId, viewOf(shown.get(action.instanceId), [action]));
    }
    /** @type {Document[]} */
    const met = [];
    for (const item of shown.values()) if (item && matches(filter, item, shape)) met.push(item);
    return inOrder(met, keys).slice(skip, skip + limit).map((item) => this._hooks.document(model, item));
  }

  /** @param {string} model @param {string} id @returns {Promise<Copy | undefined>} */
  async _copy(model, id) {
    const copy = await (await this.opened()).get('local', keyOf(model, id));
    if (copy?.expiresAt === undefined || copy.expiresAt > Date.now()) return copy;
    await this._drop(model, id);
    return undefined;
  }

  /** @param {string} [owner] */
  async clear(owner) {
    const names = ['id', 'created_by', 'createdBy', 'user_id', 'userId', 'owner'];
    const store = await this.opened();
    /** @type {Copy[]} */
    const copies = await store.all('local');
    const gone = copies.filter(
      ({ instanceId, content }) =>
        owner === undefined || instanceId === owner || names.some((name) => content[name] === owner),
    );
    await store.write(gone.map(({ modelId, instanceId }) => ({ table: 'local', key: keyOf(modelId, instanceId) })));
    for (const { modelId, instanceId } of gone) await this._tell(modelId, instanceId, 'cleared');
    return gone.length;
  }

  /** @param {string} model @param {string | undefined} id @param {(change: LocalChange) => any} hear @returns {() => void} */
  watch(model, id, hear) {
    const watcher = { model, id, hear };
    this._watchers.add(watcher);
    return () => {
      this._watchers.delete(watcher);
    };
  }

  /** @param {string} model @param {string} id @param {LocalChange['reason']} reason @param {CosmicSyncError} [error] */
  async _tell(model, id, reason, error) {
    const hearing = [...this._watchers].filter((w) => w.model === model && (w.id === undefined || w.id === id));
    if (!hearing.length) return;
    const change = { modelId: model, instanceId: id, data: await this.get(model, id), reason, error };
    for (const { hear } of hearing) {
      try {
        await hear(change);
      } catch (fault) {
        this._hooks.onError(fault);
      }
    }
  }

  /** Bring a copy up to date, if there is one; undefined: the instance is deleted. @param {string} model @param {string} id @param {Document} [content] @returns {Promise<boolean>} whether there was another one */
  async takeRemote(model, id, content) {
    /** @type {Copy | undefined} */
    const copy = await (await this.opened()).get('local', keyOf(model, id));
    if (!copy || isSame(copy.content, content)) return false;
    if (content) await this._keep({ ...copy, content: { ...content }, storedAt: Date.now() });
    else await this._drop(model, id);
    await this._tell(model, id, 'remote');
    return true;
  }

  // -- the queue

  /** @param {ActionGiven} given @returns {Promise<Action>} */
  async queue({ type, modelId, instanceId, data = {}, baseVersion }) {
    if (!Object.hasOwn(METHODS, type)) throw new TypeError(`An action is a create, an update or a delete, not ${type}`);
    if (!modelId) throw new TypeError('An action names its model: modelId');
    if (!instanceId && type !== 'create') throw new TypeError(`An action of type ${type} needs an instanceId`);
    const id = String(instanceId ?? data.id ?? newKey());
    const cosmicSync = this._data._client();
    const previous = await this.get(modelId, id);
    const context = { action: type, model: modelId, instanceId: id, changes: data, previous, cosmicSync };
    const { id: _, ...changes } = await this._hooks.before(context);
    const store = await this.opened();
    const base = (await this._copy(modelId, id))?.content;
    const isFirst = !(await this._waiting(modelId, id)).length;
    const seen = type === 'update' && isFirst ? base?.version : undefined;
    const action = await store.append((place) => ({
      id: newKey(),
      place,
      user: this._transport.user,
      type,
      modelId,
      instanceId: id,
      data: type === 'delete' ? {} : asJson(changes),
      base,
      baseVersion: baseVersion ?? seen,
      queuedAt: Date.now(),
      revision: 0,
      hasNewId: instanceId === undefined && data.id === undefined,
    }));
    await this._tell(modelId, id, 'optimistic');
    return action;
  }

  /** @returns {Promise<Action[]>} */
  async actions() {
    return (await this.opened()).all('action');
  }

  /** @param {string} model @param {string} id */
  async _waiting(model, id) {
    return (await this.actions()).filter(({ modelId, instanceId }) => modelId === model && instanceId === id);
  }

  /** @param {Action[]} actions */
  async _put(actions) {
    const changes = actions.map((action) => ({ table: /** @type {const} */ ('action'), key: action.place, value: action }));
    await (await this.opened()).write(changes);
  }

  /** @param {Action} action */
  async _remove(action) {
    await (await this.opened()).write([{ table: 'action', key: action.place }]);
  }

  /** @param {string} id @returns {Promise<boolean>} */
  discard(id) {
    return this._alone(async () => {
      const action = (await this.actions()).find((each) => each.id === id);
      if (!action) return false;
      await this._remove(action);
      await this._tell(action.modelId, action.instanceId, 'reverted');
      return true;
    });
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  _inTurn(work) {
    const done = this._turn.then(() => this._transport.unlessClosed(work));
    this._turn = done.catch(() => {});
    return this._transport.unlessClosed(() => done);
  }

  /** While nobody sends, neither here nor in another tab: what is taken back must not be on its way. @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  _alone(work) {
    return this._inTurn(async () => (await this.opened()).sending(() => this._transport.unlessClosed(work)));
  }

  // -- meeting the node

  /** @param {{waitForPeersMs?: number}} [options] @returns {Promise<SyncResult>} */
  sync({ waitForPeersMs = 0 } = {}) {
    return this._inTurn(async () => {
      /** @type {SyncResult} */
      const result = { syncedCount: 0, conflicts: [], refused: [], sent: 0, received: 0, remaining: 0, isOffline: false };
      const store = await this.opened();
      const send = async () => {
        try {
          await this._send(result);
          await this._withPeers(result, waitForPeersMs);
          if ((await store.all('local')).length) result.received = await this._catchUp();
        } catch (error) {
          if (!(error instanceof NodeUnreachable)) throw error;
          result.isOffline = true;
        }
      };
      // Whatever a hook still does when the client is closed, another one may send then.
      await store.sending(() => this._transport.unlessClosed(send));
      const waiting = await this.actions();
      result.remaining = waiting.length;
      const parked = waiting.flatMap(({ conflict }) => (conflict ? [conflict] : []));
      result.conflicts = [...parked, ...result.conflicts];
      return result;
    });
  }

  /** @param {SyncResult} result */
  async _send(result) {
    let countMax = BATCH_MAX;
    for (let batch = await this._nextBatch(countMax); batch; batch = await this._nextBatch(countMax)) {
      const { key, actions } = batch;
      let answers;
      try {
        answers = await this._data.batch(actions.map(operationOf), { atomic: false, versions: true, key });
      } catch (error) {
        const status = error instanceof CosmicSyncError ? error.status : undefined;
        if (status === undefined || [401, 403, 429].includes(status) || status >= 500) throw error;
        await this._endBatch(key);
        if (actions.length === 1) await this._refuse(actions[0], /** @type {CosmicSyncError} */ (error), result);
        countMax = 1;
        continue;
      }
      let later;
      for (const [number, action] of actions.entries()) later = (await this._settle(action, answers[number], result)) ?? later;
      await this._endBatch(key);
      if (later) throw later;
    }
  }

  /** The next actions in their order, noted as being sent. What was sent before, is sent as it was. @param {number} countMax */
  async _nextBatch(countMax) {
    const waiting = await this.actions();
    const key = waiting.find(({ batch }) => batch !== undefined)?.batch;
    if (key !== undefined) return { key, actions: waiting.filter(({ batch }) => batch === key) };
    const user = this._transport.user;
    const held = new Set();
    const places = new Set();
    /** @type {Action[]} */
    const taken = [];
    let size = 0;
    for (const action of waiting) {
      const place = keyOf(action.modelId, action.instanceId);
      if ((action.user !== '' && action.user !== user) || action.conflict || held.has(place)) {
        held.add(place); // what follows on the same instance waits behind it
        continue;
      }
      size += toJson(action.data).length;
      if (taken.length === countMax || (taken.length && size > BATCH_SIZE_MAX) || places.has(place)) break;
      taken.push(action);
      places.add(place);
    }
    if (!taken.length) return undefined;
    const [{ id, revision }] = taken;
    const own = revision ? `${id}-${revision}` : id;
    const fresh = taken.length === 1 ? own : newKey();
    const actions = taken.map((action) => ({ ...action, batch: fresh }));
    await this._put(actions);
    return { key: fresh, actions };
  }

  /** Those of a batch that still wait may be sent in another one. @param {string} key */
  async _endBatch(key) {
    const left = (await this.actions()).filter(({ batch }) => batch === key);
    await this._put(left.map((action) => ({ ...action, batch: undefined })));
  }

  /** Why it is to be tried later, if it is. @param {Action} action @param {{status: number, body: any, version?: string}} answer @param {SyncResult} result */
  async _settle(action, { status, body, version }, result) {
    if (status < 300 || (status === 404 && action.type === 'delete')) return this._stored(action, result, version);
    const refusal = errorOf(status, body);
    if (status === 429 || status >= 500) {
      await this._put([{ ...action, batch: undefined, revision: action.revision + 1 }]);
      return refusal;
    }
    const existsAlready = status === 409 && action.type === 'create' && !Object.keys(refusal.details).length;
    if (status === 412 || existsAlready) return this._meet(action, refusal, result);
    return this._refuse(action, refusal, result);
  }

  /** The copy is what was sent, until the changes that follow tell what the node has. @param {Action} action @param {SyncResult} result @param {string} [version] @returns {Promise<undefined>} */
  async _stored(action, result, version) {
    const { modelId, instanceId } = action;
    const copy = await this._copy(modelId, instanceId);
    const content = viewOf(copy ? copy.content : action.base, [action]);
    if (content) {
      content.version = version; // what is queued from now on is made on this one
      await this._keep({ modelId, instanceId, content, storedAt: Date.now(), expiresAt: copy?.expiresAt });
    } else await this._drop(modelId, instanceId);
    await this._remove(action);
    result.sent += 1;
    result.syncedCount += 1;
    const { type, data, base } = action;
    const context = this._data._context(type, modelId, instanceId, data, base);
    await this._hooks.after(context, content ?? base ?? { id: instanceId });
    await this._tell(modelId, instanceId, 'confirmed');
  }

  /** @param {Action} action @param {CosmicSyncError} refusal @param {SyncResult} result @returns {Promise<undefined>} */
  async _refuse(action, refusal, result) {
    await this._remove(action);
    result.refused.push({ ...action, error: refusal });
    await this._tell(action.modelId, action.instanceId, 'reverted', refusal);
  }

  /** The instance is another one than the action was made on. @param {Action} action @param {CosmicSyncError} refusal @param {SyncResult} result @returns {Promise<undefined>} */
  async _meet(action, refusal, result) {
    let remote;
    try {
      remote = (await this._transport.ask('GET', pathOf(action.modelId, action.instanceId))).body;
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
      return this._refuse(action, refusal, result);
    }
    const met = await this.conflicts.meet(action, remote);
    if (!met) return this._stored(action, result, remote.version);
    await this._put([{ ...met, batch: undefined }]);
  }

  /** @param {string} id @param {any} resolution */
  resolve(id, resolution) {
    return this._alone(async () => {
      const action = (await this.actions()).find(({ conflict }) => conflict?.id === id);
      if (!action) return this.conflicts.resolve(id, resolution);
      const decided = this.conflicts.decided(action, resolution);
      if (decided) await this._put([decided]);
      else {
        await this._remove(action);
        await this.takeRemote(action.modelId, action.instanceId, action.conflict?.remote);
        await this._tell(action.modelId, action.instanceId, 'reverted');
      }
      return { ...action.conflict, resolved: true };
    });
  }

  /** @param {SyncResult} result @param {number} waitMs */
  async _withPeers(result, waitMs) {
    let body;
    try {
      const query = { timeout_ms: String(Math.trunc(waitMs)) };
      body = (await this._transport.ask('POST', '/v1/sync', undefined, { query, isRepeatable: true })).body;
    } catch (error) {
      const status = error instanceof CosmicSyncError ? error.status : undefined;
      if (status === undefined || status === 401 || status === 429) throw error;
      return; // a node that speaks to nobody has nothing to sync with
    }
    result.syncedCount += body.syncedCount;
    result.conflicts = await this.conflicts.settleOpen(body.conflicts);
  }

  // -- what others did

  async _catchUp() {
    let received = 0;
    await this.partialSync(undefined, undefined, () => {
      received += 1;
    });
    return received;
  }

  /**
   * @param {string | number | Date | null} [since]
   * @param {string} [model]
   * @param {() => void} [onFollowed] called for every copy that was brought up to date
   * @returns {Promise<Changes>}
   */
  async partialSync(since, model, onFollowed = () => {}) {
    const store = await this.opened();
    const isOwn = since === undefined || since === null;
    let cursor = isOwn ? await store.get('note', CURSOR) : String(since instanceof Date ? since.getTime() : since);
    if (cursor === undefined) {
      /** @type {Copy[]} */
      const copies = await store.all('local');
      cursor = String(Math.min(Date.now(), ...copies.map(({ storedAt }) => storedAt)) - 5_000);
    }
    /** @type {Changes} */
    const told = { syncedCount: 0, changes: [], conflicts: [], cursor, resync: false };
    for (let hasMore = true; hasMore; ) {
      const query = { since: told.cursor, limit: PAGE, model };
      const { body } = await this._transport.ask('GET', '/v1/sync/changes', undefined, { query });
      if (body.resync) {
        told.resync = true;
        await this.readAnew();
      }
      for (const change of body.changes) {
        if (await this.takeRemote(change.model, change.instanceId, change.data)) onFollowed();
      }
      told.changes.push(...body.changes);
      told.conflicts.push(...body.conflicts);
      told.syncedCount = told.changes.length;
      told.cursor = body.cursor;
      hasMore = body.has_more;
    }
    if (isOwn && model === undefined) await store.write([{ table: 'note', key: CURSOR, value: told.cursor }]);
    return told;
  }

  /** What happened meanwhile is not known: every copy is asked for again, or those of some models. @param {string[]} [models] */
  async readAnew(models) {
    /** @type {Map<string, Copy[]>} */
    const byModel = new Map();
    for (const copy of await (await this.opened()).all('local')) {
      if (models?.includes(copy.modelId) ?? true) byModel.set(copy.modelId, [...(byModel.get(copy.modelId) ?? []), copy]);
    }
    for (const [model, copies] of byModel) {
      for (let start = 0; start < copies.length; start += CHUNK) {
        const chunk = copies.slice(start, start + CHUNK);
        const found = await this._readable(model, chunk.map(({ instanceId }) => instanceId));
        for (const { instanceId: id, content } of chunk) {
          // One without a version never was the node's: it is the app's own.
          if (found.has(id) || content.version !== undefined) await this.takeRemote(model, id, found.get(id));
        }
      }
    }
  }

  /** Those instances that are there, and that one may read. @param {string} model @param {string[]} ids @returns {Promise<Map<string, Document>>} */
  async _readable(model, ids) {
    try {
      return new Map((await this._data.query(model, { id: { $in: ids } })).map((item) => [item.id, item]));
    } catch (error) {
      if (error instanceof NotFound || error instanceof Forbidden) return new Map();
      throw error;
    }
  }
}

/** @param {Action} action @returns {import('./data.js').Operation} */
function operationOf(action) {
  const isCreate = action.type === 'create';
  const path = pathOf(action.modelId, isCreate ? undefined : action.instanceId).slice(3);
  const operation = { method: METHODS[action.type], path, if_match: action.baseVersion };
  if (isCreate) return { ...operation, body: { ...action.data, id: action.instanceId } };
  return action.type === 'update' ? { ...operation, body: fieldsOf(action.data) } : operation;
}
