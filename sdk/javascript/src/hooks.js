/**
 * What an app adds to its models on this device: validators, triggers, queries, methods, resolvers.
 *
 * Room: keeping and calling them. When they are called is decided by `data` and `offline`. They run in the app: what
 * every node is to enforce belongs into the model.
 */

import { INSTANCE, fieldsOf, instanceOf, isSame } from './documents.js';

/** @typedef {import('./documents.js').Document} Document */
/** @typedef {'create' | 'update' | 'delete'} Doing */
/**
 * @typedef {object} Context what a hook is told beside the data
 * @property {Doing} action
 * @property {string} model
 * @property {string} [instanceId]
 * @property {Document} changes what was given
 * @property {Document} [previous]
 * @property {any} cosmicSync the client
 */
/** @typedef {(data: Document, context: Context) => any} Hook */
/** @typedef {(local: any, remote: any, ancestor?: any) => any} Resolver gives an instance, or nothing to leave it open */

const EVENTS = ['before', 'after'].flatMap((when) => ['Create', 'Update', 'Delete'].map((what) => when + what));

/** @template T @param {Map<string, T[]>} map @param {string} key @param {T} value */
function push(map, key, value) {
  map.set(key, [...(map.get(key) ?? []), value]);
}

/** @param {Doing} action */
const named = (action) => action[0].toUpperCase() + action.slice(1);

/** All of one client. `onError` hears what fails when it is too late to prevent anything. */
export class Hooks {
  /** @param {(error: unknown) => void} onError */
  constructor(onError) {
    this.onError = onError;
    /** @type {Map<string, Map<string, Function>>} */
    this.queries = new Map();
    /** @type {Map<string, Resolver>} */
    this.resolvers = new Map();
    /** @type {Map<string, Hook[]>} */
    this._validators = new Map();
    /** @type {Map<string, Hook[]>} */
    this._triggers = new Map();
    /** @type {Map<string, object>} */
    this._prototypes = new Map();
  }

  /** @param {string} model @param {Hook} validate */
  addValidator(model, validate) {
    push(this._validators, model, validate);
  }

  /** @param {string} model @param {string} event @param {Hook} handler @throws {RangeError} for an event that never comes */
  addTrigger(model, event, handler) {
    if (!EVENTS.includes(event)) throw new RangeError(`There is no event ${event}: ${EVENTS.join(', ')}`);
    push(this._triggers, `${model} ${event}`, handler);
  }

  /** @param {string} model @param {string} name @param {Function} query */
  addQuery(model, name, query) {
    const known = this.queries.get(model) ?? new Map();
    this.queries.set(model, known.set(name, query));
  }

  /** @param {string} model @param {object} methods methods and accessors */
  extend(model, methods) {
    const prototype = Object.create(this._prototypes.get(model) ?? INSTANCE, Object.getOwnPropertyDescriptors(methods));
    this._prototypes.set(model, prototype);
  }

  /** An instance with the methods of its model. @param {string} model @param {Document} content @param {Document} [hidden] */
  document(model, content, hidden) {
    return instanceOf(this._prototypes.get(model) ?? INSTANCE, content, hidden);
  }

  /** Whether some hook looks at the whole instance before it is written. @param {string} model @param {Doing} action */
  needsPrevious(model, action) {
    return this._validators.has(model) || this._triggers.has(`${model} before${named(action)}`);
  }

  /** @param {string} model @param {Doing} action */
  hasAfter(model, action) {
    return this._triggers.has(`${model} after${named(action)}`);
  }

  /**
   * What is to be written in place of the changes. Throws what a validator or a trigger throws.
   * A `before…` trigger may change the data that it is given; what it changes is written.
   *
   * @param {Context} context
   * @returns {Promise<Document>}
   */
  async before(context) {
    const { action, model, changes, previous } = context;
    const before = { ...fieldsOf(previous ?? {}), ...changes };
    const whole = this.document(model, before);
    for (const handler of this._triggers.get(`${model} before${named(action)}`) ?? []) await handler(whole, context);
    if (action !== 'delete') {
      for (const validate of this._validators.get(model) ?? []) await validate(whole, context);
    }
    const moved = Object.entries(whole).filter(([name, value]) => !isSame(before[name], value));
    return { ...changes, ...Object.fromEntries(moved) };
  }

  /** The write is stored; what a trigger throws now changes nothing about that. @param {Context} context @param {Document} content */
  async after(context, content) {
    for (const handler of this._triggers.get(`${context.model} after${named(context.action)}`) ?? []) {
      try {
        await handler(this.document(context.model, content), context);
      } catch (error) {
        this.onError(error);
      }
    }
  }
}
