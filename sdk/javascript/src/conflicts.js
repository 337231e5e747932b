/**
 * Two versions of one instance: what an app's resolver is shown, and what is done with its decision.
 *
 * Room: meetings of a queued action with another version, and the node's own conflicts (values that did not see each
 * other). A resolver is called with `(local, remote, ancestor)` and gives back an instance; nothing leaves it open.
 */

import { META_FIELDS, asJson, changedFields, fieldsOf, newKey } from './documents.js';
import { CosmicSyncError, NotFound } from './errors.js';
import { pathOf } from './data.js';

/** @typedef {import('./documents.js').Document} Document */
/** @typedef {import('./offline.js').Action} Action */
/** @typedef {Record<string, any> & {id: string, model: string, instance_id: string, field: string}} ConflictTold */

const DELETED = '$deleted';
const TRIES_MAX = 10; // an action that meets yet another version so often waits for somebody to decide

/** What there is to decide, for one client. */
export class Conflicts {
  /** @param {import('./transport.js').Transport} transport @param {import('./hooks.js').Hooks} hooks */
  constructor(transport, hooks) {
    this._transport = transport;
    this._hooks = hooks;
    /** @type {Map<string, Document | undefined>} */
    this._ancestors = new Map(); // of instances being resolved
  }

  /**
   * A queued action meets another version. What to send instead; an action with a `conflict` waits; undefined: what
   * it wants is there already.
   *
   * @param {Action} action
   * @param {Document} remote
   * @returns {Promise<Action | undefined>}
   */
  async meet(action, remote) {
    if (action.type === 'delete') return { ...action, baseVersion: remote.version, revision: action.revision + 1 };
    const wanted = changedFields(remote, action.data);
    // An earlier try, whose answer was lost, has done it.
    if (!Object.keys(wanted).length || (action.type === 'create' && action.hasNewId)) return undefined;
    const ancestor = action.base;
    const at = new Date(action.queuedAt).toISOString();
    const local = { ...(ancestor ?? remote), ...action.data, id: action.instanceId, updated_at: at };
    const decided = await this._decide(action.modelId, local, remote, ancestor);
    const isPatient = action.revision < TRIES_MAX;
    if (decided && isPatient) return onTop(action, remote, changedFields(remote, fieldsOf(decided)));
    const both = Object.keys(wanted).filter((name) => !ancestor || name in changedFields(ancestor, remote));
    if (!both.length && isPatient && !this._hooks.resolvers.has(action.modelId)) {
      return onTop(action, remote, action.data);
    }
    const fields = both.length ? both : Object.keys(wanted);
    return { ...action, conflict: described(action, fields, local, remote, ancestor) };
  }

  /**
   * What the resolver of a model decides; undefined if it has none, or leaves it open.
   *
   * @param {string} model @param {Document} local @param {Document} remote @param {Document} [ancestor]
   * @returns {Promise<Document | undefined>}
   */
  async _decide(model, local, remote, ancestor) {
    const resolver = this._hooks.resolvers.get(model);
    if (!resolver) return undefined;
    /** Its id and fields; what the node adds can be read, but is nothing to merge. @param {Document} version */
    const shown = (version) => {
      const { id, ...rest } = version;
      const hidden = Object.fromEntries(META_FIELDS.filter((name) => name in rest).map((name) => [name, rest[name]]));
      return this._hooks.document(model, { id, ...fieldsOf(rest) }, hidden);
    };
    this._ancestors.set(local.id, ancestor && shown(ancestor));
    try {
      const decided = await resolver(shown(local), shown(remote), this._ancestors.get(local.id));
      return decided !== null && typeof decided === 'object' ? asJson({ ...decided }) : undefined;
    } finally {
      this._ancestors.delete(local.id);
    }
  }

  /**
   * The action after a decision on its conflict; undefined if nothing is left to send.
   *
   * @param {Action} action
   * @param {any} resolution an instance, some of its fields, or the word `local` or `remote`
   * @returns {Action | undefined}
   */
  decided(action, resolution) {
    const { remote } = /** @type {ConflictTold} */ (action.conflict);
    if (resolution === 'remote') return undefined;
    const given = resolution?.resolution ?? resolution;
    if (resolution !== 'local' && (given === null || typeof given !== 'object')) {
      throw new TypeError("A conflict is resolved with an instance, some of its fields, 'local' or 'remote'");
    }
    return onTop(action, remote, changedFields(remote, resolution === 'local' ? action.data : fieldsOf(asJson(given))));
  }

  /**
   * Ask resolvers about the node's open conflicts.
   *
   * @param {ConflictTold[]} listed
   * @returns {Promise<ConflictTold[]>} those that stay open, of `listed` and of the models with resolvers
   */
  async settleOpen(listed) {
    const open = new Map(listed.filter(({ resolved }) => !resolved).map((conflict) => [conflict.id, conflict]));
    for (const model of this._hooks.resolvers.keys()) {
      try {
        const { body } = await this._transport.ask('GET', '/v1/conflicts', undefined, {
          query: { model, per_page: '100' },
        });
        for (const conflict of body.items) open.set(conflict.id, conflict);
      } catch (error) {
        if (!(error instanceof NotFound)) throw error; // not a model of this node yet
      }
    }
    const left = [];
    for (const conflict of open.values()) if (!(await this._settled(conflict))) left.push(conflict);
    return left;
  }

  /** Whether a resolver has ended it. @param {ConflictTold} conflict */
  async _settled(conflict) {
    const { field, model } = conflict;
    if (field === DELETED || !this._hooks.resolvers.has(model)) return false;
    try {
      const shown = (await this._transport.ask('GET', pathOf(model, conflict.instance_id))).body;
      const ancestor = 'ancestor' in conflict ? { ...shown, [field]: conflict.ancestor } : undefined;
      /** @param {{value: any, at: string}} said */
      const version = ({ value, at }) => ({ ...shown, [field]: value, updated_at: at });
      const [first, ...others] = conflict.values;
      /** @type {Document | undefined} */
      let decided = version(first);
      for (const other of others) {
        const next = await this._decide(model, /** @type {Document} */ (decided), version(other), ancestor);
        if (!next) return false;
        decided = { ...decided, ...next };
      }
      await this._end(conflict.id, { [field]: /** @type {Document} */ (decided)[field] ?? null });
      return true;
    } catch (error) {
      if (!(error instanceof CosmicSyncError) || ![403, 404, 409].includes(error.status ?? 0)) throw error;
      return false; // another one by now, or another's to decide
    }
  }

  /**
   * End a conflict of the node with an instance, with `{field: value}`, or with the value itself.
   *
   * @param {string} id
   * @param {any} resolution
   */
  async resolve(id, resolution) {
    const { field } = (await this._transport.ask('GET', `/v1/conflicts/${encodeURIComponent(id)}`)).body;
    const given = resolution?.resolution ?? resolution;
    const isObject = given !== null && typeof given === 'object';
    if (field === DELETED) return this._end(id, isObject ? given : { [DELETED]: Boolean(given) });
    return this._end(id, { [field]: isObject && Object.hasOwn(given, field) ? given[field] : given });
  }

  /** @param {string} id @param {Document} resolution */
  async _end(id, resolution) {
    return (await this._transport.ask('POST', `/v1/conflicts/${encodeURIComponent(id)}/resolve`, { resolution })).body;
  }

  /** What two versions of an instance came from: that of the conflict being resolved, or the node's. @param {string} id */
  async ancestor(id) {
    if (this._ancestors.has(id)) return this._ancestors.get(id);
    const { body } = await this._transport.ask('GET', '/v1/conflicts', undefined, { query: { instance_id: id } });
    const known = body.items.find((/** @type {ConflictTold} */ conflict) => 'ancestor' in conflict);
    return known && { id, [known.field]: known.ancestor };
  }
}

/** The same action made on what is there now: another request, under a key of its own. @param {Action} action @param {Document} remote @param {Document} changes @returns {Action | undefined} */
function onTop(action, remote, changes) {
  if (!Object.keys(changes).length) return undefined;
  return {
    ...action,
    type: 'update',
    data: changes,
    base: remote,
    baseVersion: remote.version,
    revision: action.revision + 1,
    conflict: undefined,
  };
}

/**
 * A conflict of the queue, in the shape of the node's, with both versions.
 *
 * @param {Action} action @param {string[]} fields @param {Document} local @param {Document} remote @param {Document} [ancestor]
 * @returns {ConflictTold}
 */
function described(action, fields, local, remote, ancestor) {
  const [field] = fields;
  return {
    id: `local-${newKey()}`,
    model: action.modelId,
    instance_id: action.instanceId,
    field,
    fields,
    values: [
      { value: local[field] ?? null, node: 'local', user: action.user, at: local.updated_at },
      { value: remote[field] ?? null, node: 'remote', user: remote.created_by ?? '', at: remote.updated_at },
    ],
    strategy: 'client',
    resolved: false,
    local,
    remote,
    ancestor: ancestor ?? null,
  };
}
