/**
 * Models and instances: `createInstance`, `query` and their kin, asked of a node.
 *
 * Room: from what an app says to requests, and from answers to instances. Hooks run here, around each write. What is
 * done without a node is `offline`'s.
 */

import { ModelShape, asJson, newKey } from './documents.js';
import { BadRequest, Conflict, CosmicSyncError, NotFound, NotOffered } from './errors.js';
import { inOrder, matches, projected, sortKeys, translate } from './filters.js';

/** @typedef {import('./documents.js').Document} Document */
/** @typedef {import('./hooks.js').Context} Context */
/** @typedef {{id: string, instance_id: string, version?: string, message: string, heldByPeers?: number}} Created `heldByPeers` where it was waited for */
/**
 * @typedef {object} QueryOptions
 * @property {number} [skip]
 * @property {number} [limit] without it, all
 * @property {Record<string, number>} [sort] field to 1 or -1
 * @property {Record<string, any>} [projection] fields to 1 or 0
 */
/**
 * @typedef {object} WriteOptions
 * @property {string} [ifMatch] write only if this is still the version
 * @property {number} [waitForPeers] answer when so many other devices hold it, too, or soon say that fewer do: `heldByPeers`
 */
/** @typedef {{modelName: string, instanceId: string, updates: Document}} Update */
/** @typedef {{method: string, path: string, body?: any, if_match?: string}} Operation */

const PAGE_MAX = 100;
const SHAPE_FOR_MS = 60_000; // a definition is asked for again after so long

/** @param {string} model @param {string} [id] */
export function pathOf(model, id) {
  return `/v1/data/${encodeURIComponent(model)}${id === undefined ? '' : `/${encodeURIComponent(id)}`}`;
}

/** @param {string} model */
const definitionOf = (model) => `/v1/data-models/${encodeURIComponent(model)}`;

/** @param {WriteOptions} options @returns {Record<string, string>} */
function headersOf({ ifMatch, waitForPeers }) {
  return {
    ...(ifMatch === undefined ? {} : { 'If-Match': `"${ifMatch}"` }),
    ...(waitForPeers === undefined ? {} : { Prefer: `wait=peers:${waitForPeers}` }),
  };
}

/** What a node says of how many others hold a write, if it was asked. @param {import('./transport.js').Answer} answer @returns {{heldByPeers?: number}} */
function heldBy({ headers }) {
  const count = headers.get('X-Held-By-Peers');
  return count === null ? {} : { heldByPeers: Number(count) };
}

/** One node's data, as the signed-in user may see it. */
export class Data {
  /**
   * @param {import('./transport.js').Transport} transport
   * @param {import('./hooks.js').Hooks} hooks
   * @param {() => any} client
   */
  constructor(transport, hooks, client) {
    this._transport = transport;
    this._hooks = hooks;
    this._client = client;
    /** @type {Map<string, {until: number, shape: ModelShape}>} */
    this._shapes = new Map();
    /** @type {Map<string, Promise<any>>} */
    this._defining = new Map(); // what is asked of a model waits until it is defined
  }

  // -- models

  /** Define a model, or let it grow. @param {string} name @param {Record<string, any>} definition @returns {Promise<Record<string, any>>} */
  defineModel(name, definition) {
    const before = this._defining.get(name) ?? Promise.resolve();
    const defining = before.then(() => this._define(name, definition));
    const ended = defining.catch(() => {}).finally(() => {
      if (this._defining.get(name) === ended) this._defining.delete(name);
    });
    this._defining.set(name, ended);
    return defining;
  }

  /** @param {string} name @param {Record<string, any>} definition */
  async _define(name, definition) {
    /** @type {Record<string, any>} */
    const given = { name, fields: {}, ...definition };
    this._shapes.delete(name);
    try {
      await this._transport.ask('POST', '/v1/data-models', given);
      return (await this._transport.ask('GET', definitionOf(name))).body;
    } catch (error) {
      if (!(error instanceof Conflict || error instanceof BadRequest)) throw error;
      const now = await this._transport.ask('GET', definitionOf(name)).catch((absent) => {
        throw absent instanceof NotFound ? error : absent;
      });
      // It exists: what is new is added.
      const { fields, indexes, ...rest } = given;
      const grown = { ...now.body, ...rest, fields: joinedFields(now.body.fields, fields) };
      grown.indexes = joinedIndexes(now.body.indexes ?? [], indexes ?? []);
      return (await this._transport.ask('PUT', definitionOf(name), grown)).body;
    }
  }

  /** The types of a model's fields, asked for once a minute at most. @param {string} model */
  async shape(model) {
    await this._defining.get(model);
    const known = this._shapes.get(model);
    if (known && known.until > Date.now()) return known.shape;
    let shape;
    try {
      shape = ModelShape.of((await this._transport.ask('GET', definitionOf(model))).body);
    } catch (error) {
      if (!(error instanceof CosmicSyncError) || ![401, 403].includes(error.status ?? 0)) throw error;
      shape = new ModelShape(model); // a public model: its values say enough for most filters
    }
    this._shapes.set(model, { until: Date.now() + SHAPE_FOR_MS, shape });
    return shape;
  }

  // -- one instance

  /**
   * @param {string} model @param {Document} given @param {WriteOptions} [options]
   * @returns {Promise<Created>} a repetition after a lost answer makes no second one
   */
  async create(model, given, options = {}) {
    await this._defining.get(model);
    const context = this._context('create', model, given.id, given);
    const data = await this._hooks.before(context);
    const id = String(data.id ?? newKey());
    let answer;
    try {
      const asked = { headers: headersOf(options), isRepeatable: true };
      answer = await this._transport.ask('POST', pathOf(model), { ...data, id }, asked);
    } catch (error) {
      const isOurs = error instanceof Conflict && data.id === undefined && !Object.keys(error.details).length;
      if (!isOurs) throw error;
      // Nobody else knows this id: an earlier try, whose answer was lost, has made it.
      answer = await this._transport.ask('GET', pathOf(model, id));
    }
    const { version } = answer;
    await this._hooks.after(context, { ...data, id, version });
    return { id, instance_id: id, version, message: 'Instance created successfully', ...heldBy(answer) };
  }

  /** @param {string} model @param {string} id @returns {Promise<any>} */
  async get(model, id) {
    await this._defining.get(model);
    return this._hooks.document(model, (await this._transport.ask('GET', pathOf(model, id))).body);
  }

  /**
   * @param {string} model @param {string} id @param {Document} given @param {WriteOptions} [options]
   * @returns {Promise<{id: string, version?: string, message: string, heldByPeers?: number}>}
   */
  async update(model, id, given, options = {}) {
    await this._defining.get(model);
    const context = await this._updating(model, id, given);
    const changes = await this._hooks.before(context);
    // Operations on a text or a list say what to do, not what shall be: done twice they are another edit.
    const hasEdits = Object.values(changes).some((value) => Array.isArray(value?.ops));
    const asked = { headers: headersOf(options), isRepeatable: hasEdits ? false : undefined };
    const answer = await this._transport.ask('PUT', pathOf(model, id), changes, asked);
    if (this._hooks.hasAfter(model, 'update')) await this._hooks.after(context, await this.get(model, id));
    return { ...answer.body, id, version: answer.version, ...heldBy(answer) };
  }

  /** @param {string} model @param {string} id @param {Document} changes */
  async _updating(model, id, changes) {
    const previous = this._hooks.needsPrevious(model, 'update') ? await this.get(model, id) : undefined;
    return this._context('update', model, id, changes, previous);
  }

  /** @param {string} model @param {string} id @param {WriteOptions} [options] */
  async delete(model, id, options = {}) {
    await this._defining.get(model);
    const isSeen = this._hooks.needsPrevious(model, 'delete') || this._hooks.hasAfter(model, 'delete');
    const context = this._context('delete', model, id, {}, isSeen ? await this.get(model, id) : undefined);
    await this._hooks.before(context);
    await this._transport.ask('DELETE', pathOf(model, id), undefined, { headers: headersOf(options) });
    await this._hooks.after(context, context.previous ?? { id });
  }

  /**
   * @param {import('./hooks.js').Doing} action @param {string} model @param {string | undefined} instanceId
   * @param {Document} changes @param {Document} [previous]
   * @returns {Context}
   */
  _context(action, model, instanceId, changes, previous) {
    return { action, model, instanceId, changes, previous, cosmicSync: this._client() };
  }

  // -- many

  /**
   * @param {string} model
   * @param {import('./filters.js').Filter | string | null} [filter] MongoDB's, or a text in the node's own language
   * @param {QueryOptions} [options]
   * @returns {Promise<any[]>}
   */
  async query(model, filter, { skip = 0, limit, sort, projection } = {}) {
    if (limit !== undefined && limit <= 0) return [];
    const shape = await this.shape(model);
    const keys = sortKeys(sort, shape);
    const fields = projected(projection, shape);
    const asked = typeof filter === 'string' ? { text: filter, isExact: true } : translate(filter, shape);
    if ('isEmpty' in asked && asked.isEmpty) return [];
    /** @type {Record<string, string>} */
    const query = asked.text === undefined ? {} : { filter: asked.text };
    if (keys.length === 1) Object.assign(query, { sort: keys[0][0], order: keys[0][1] ? 'desc' : 'asc' });
    let found;
    if (asked.isExact && keys.length < 2) {
      if (fields) query.fields = fields.join(',');
      found = await this._window(model, query, skip, limit);
    } else {
      const enough = limit === undefined || keys.length > 1 ? Infinity : skip + limit;
      const isMet = (/** @type {Document} */ item) => typeof filter === 'string' || matches(filter, item, shape);
      let every = await this._judged(model, query, isMet, enough);
      if (keys.length > 1) every = inOrder(every, keys);
      found = every.slice(skip, limit === undefined ? undefined : skip + limit);
      if (fields) {
        const kept = ['id', ...fields];
        found = found.map((item) => Object.fromEntries(kept.filter((n) => n in item).map((n) => [n, item[n]])));
      }
    }
    return found.map((item) => this._hooks.document(model, item));
  }

  /** @param {string} model @param {Record<string, string>} query @param {(item: Document) => boolean} isMet @param {number} enough */
  async _judged(model, query, isMet, enough) {
    /** @type {Document[]} */
    const met = [];
    /** @type {string | null | undefined} */
    let cursor;
    do {
      const page = await this._page(model, { ...query, per_page: String(PAGE_MAX), cursor: cursor ?? undefined });
      met.push(...page.items.filter(isMet));
      cursor = page.next_cursor;
    } while (cursor && met.length < enough);
    return met;
  }

  /** So many from so far on: one page where it can be one, else the pages that follow. @param {string} model @param {Record<string, string>} query @param {number} skip @param {number} [limit] */
  async _window(model, query, skip, limit = Infinity) {
    let perPage = Math.min(PAGE_MAX, limit);
    while (skip % perPage) perPage -= 1;
    const start = skip ? { page: String(skip / perPage + 1) } : {};
    let page = await this._page(model, { ...query, ...start, per_page: String(perPage) });
    const found = [...page.items];
    while (page.next_cursor && found.length < limit) {
      const left = String(Math.min(PAGE_MAX, limit - found.length));
      page = await this._page(model, { ...query, per_page: left, cursor: page.next_cursor });
      found.push(...page.items);
    }
    return found.slice(0, limit);
  }

  /** @param {string} model @param {Record<string, string | undefined>} query @returns {Promise<{items: Document[], next_cursor: string | null}>} */
  async _page(model, query) {
    return (await this._transport.ask('GET', pathOf(model), undefined, { query })).body;
  }

  /** @param {string} model @param {Record<string, any>} aggregation @returns {Promise<Record<string, any>[]>} */
  async aggregate(model, aggregation) {
    const body = { ...aggregation };
    if (body.filter !== null && typeof body.filter === 'object') {
      const asked = translate(body.filter, await this.shape(model));
      if (asked.isEmpty || !asked.isExact) throw new NotOffered('A node cannot aggregate by this filter');
      body.filter = asked.text;
    }
    return (await this._transport.ask('POST', `${pathOf(model)}/aggregate`, body, { isRepeatable: true })).body;
  }

  /** A query method of a plugin. @param {string} model @param {string} name @param {Record<string, any>} parameters @returns {Promise<any>} */
  async namedQuery(model, name, parameters) {
    if (parameters === null || typeof parameters !== 'object') {
      throw new TypeError(`${model}.${name} is not registered here; the node takes its parameters as one object`);
    }
    const path = `${pathOf(model)}/queries/${encodeURIComponent(name)}`;
    return (await this._transport.ask('GET', path, undefined, { query: asTexts(parameters) })).body;
  }

  /** @param {string} model @param {string} id @param {string} name @param {Record<string, any>} [parameters] @returns {Promise<any>} */
  async callMethod(model, id, name, parameters = {}) {
    const path = `${pathOf(model, id)}/methods/${encodeURIComponent(name)}`;
    return (await this._transport.ask('GET', path, undefined, { query: asTexts(parameters) })).body;
  }

  /** @param {string} query @param {Record<string, any>} [variables] @returns {Promise<any>} */
  async graphql(query, variables) {
    const { body } = await this._transport.ask('POST', '/v1/graphql', { query, variables });
    const [first] = body.errors ?? [];
    if (first) throw new BadRequest(first.message, { errorCode: first.extensions?.error_code, body });
    return body.data;
  }

  /** @param {Operation[]} operations @param {{atomic?: boolean, versions?: boolean, key?: string}} [options] @returns {Promise<{status: number, body: any, version?: string}[]>} */
  async batch(operations, { atomic = true, versions = false, key } = {}) {
    if (!operations.length) return [];
    await Promise.all(this._defining.values());
    return (await this._transport.ask('POST', '/v1/batch', { operations, atomic, versions }, { key })).body.results;
  }

  /** @param {Update[]} updates @returns {Promise<{status: number, body: any, version?: string}[]>} */
  async batchUpdate(updates) {
    /** @type {Operation[]} */
    const operations = [];
    for (const { modelName, instanceId, updates: given } of asJson(updates)) {
      const changes = await this._hooks.before(await this._updating(modelName, instanceId, given));
      operations.push({ method: 'PUT', path: pathOf(modelName, instanceId).slice(3), body: changes });
    }
    return this.batch(operations);
  }
}

/** Parameters as a query string has them. @param {Record<string, any>} parameters */
function asTexts(parameters) {
  return Object.fromEntries(Object.entries(asJson(parameters)).map(([name, value]) => [name, String(value)]));
}

/** The fields that there are, with what is given for them, and those that are new. @param {Document[]} now @param {any} given */
function joinedFields(now, given) {
  const entries = Array.isArray(given)
    ? given.map((field) => [field.name, field])
    : Object.entries(given).map(([name, how]) => [name, { name, ...(typeof how === 'string' ? { type: how } : how) }]);
  const joined = new Map(now.map((field) => [field.name, field]));
  for (const [name, field] of entries) joined.set(name, { ...joined.get(name), ...field });
  return [...joined.values()];
}

/** @param {Document[]} now @param {Document[]} given */
function joinedIndexes(now, given) {
  /** @param {Document} index */
  const place = (index) => JSON.stringify((index.order ?? Object.keys(index.key)).map((/** @type {string} */ n) => [n, index.key[n]]));
  const replaced = new Set(given.map(place));
  return [...now.filter((index) => !replaced.has(place(index))), ...given];
}
