/**
 * Instances as an app holds them, and models as far as this library needs to know them.
 *
 * Room: plain values. An instance has its fields as own properties; the methods that `extendModel` gave its model,
 * and the seed's spellings `createdAt`, `updatedAt`, `createdBy` and `timestamp`, come from its prototype.
 */

/** @typedef {Record<string, any>} Document */

/** What the node adds to the fields of a model. */
export const META_FIELDS = ['id', 'created_at', 'updated_at', 'created_by', 'version'];

/** @type {Record<string, string>} */
const ALIASES = { createdAt: 'created_at', updatedAt: 'updated_at', createdBy: 'created_by', _id: 'id' };

/** What every instance answers to beside its own fields. */
export const INSTANCE = Object.create(null, {
  createdAt: { get() { return this.created_at; }, configurable: true },
  updatedAt: { get() { return this.updated_at; }, configurable: true },
  createdBy: { get() { return this.created_by; }, configurable: true },
  timestamp: { get() { return Date.parse(this.updated_at); }, configurable: true },
  hasOwnProperty: { value: Object.prototype.hasOwnProperty },
  toString: { value: Object.prototype.toString },
  valueOf: { value: Object.prototype.valueOf },
});

/**
 * An instance of a model. What is `hidden` can be read and is not listed.
 *
 * @param {object} prototype
 * @param {Document} content
 * @param {Document} [hidden]
 * @returns {Document}
 */
export function instanceOf(prototype, content, hidden = {}) {
  const made = Object.create(prototype);
  const how = { writable: true, configurable: true };
  for (const [name, value] of Object.entries(hidden)) {
    Object.defineProperty(made, name, { ...how, value, enumerable: false });
  }
  for (const [name, value] of Object.entries(content)) {
    Object.defineProperty(made, name, { ...how, value, enumerable: true });
  }
  return made;
}

/** The types of a model's fields; empty where the definition could not be read. */
export class ModelShape {
  /** @param {string} name @param {Record<string, string>} [fields] */
  constructor(name, fields = {}) {
    this.name = name;
    this.fields = fields;
  }

  /** @param {{name: string, fields: {name: string, type: string}[]}} definition */
  static of(definition) {
    return new ModelShape(
      definition.name,
      Object.fromEntries(definition.fields.map((field) => [field.name, field.type])),
    );
  }

  /**
   * A field as the node calls it: `createdAt` is `created_at`, unless the model has a `createdAt`.
   *
   * @param {string} name
   */
  spelt(name) {
    return Object.hasOwn(this.fields, name) || !Object.hasOwn(ALIASES, name) ? name : ALIASES[name];
  }
}

/**
 * The fields of a document without what the node added.
 *
 * @param {Document} document
 * @returns {Document}
 */
export function fieldsOf(document) {
  return Object.fromEntries(Object.entries(document).filter(([name]) => !META_FIELDS.includes(name)));
}

/**
 * Those members of `after` that are others in `before`.
 *
 * @param {Document} before
 * @param {Document} after
 * @returns {Document}
 */
export function changedFields(before, after) {
  return Object.fromEntries(Object.entries(after).filter(([name, value]) => !isSame(before[name], value)));
}

/**
 * Whether two values are the same as JSON; undefined and null are.
 *
 * @param {any} one
 * @param {any} other
 * @returns {boolean}
 */
export function isSame(one, other) {
  one = one instanceof Date ? one.toISOString() : one;
  other = other instanceof Date ? other.toISOString() : other;
  if ((one ?? null) === (other ?? null)) return true;
  if (typeof one !== 'object' || typeof other !== 'object' || !one || !other) return false;
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => isSame(one[name], other[name]));
}

/** A key that no other request, action or instance has. @returns {string} */
export function newKey() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16)); // randomUUID is not there on pages without TLS
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * What JSON keeps of a value: moments as text, sets as lists.
 *
 * @template T
 * @param {T} value
 * @returns {T}
 */
export function asJson(value) {
  return JSON.parse(toJson(value));
}

/** @param {any} value @returns {string} */
export function toJson(value) {
  return JSON.stringify(value, (_, each) => (each instanceof Set ? [...each] : each));
}
