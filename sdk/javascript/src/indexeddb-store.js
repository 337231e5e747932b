/**
 * What this device keeps, in a browser: an IndexedDB database.
 *
 * Room: durability. Several tabs of an app may have it open; one of them sends at a time (Web Locks).
 */

/** @typedef {import('./memory-store.js').Table} Table */
/** @typedef {import('./memory-store.js').Change} Change */

const TABLES = /** @type {const} */ (['action', 'local', 'note']);

/** @typedef {import('./memory-store.js').Store} Store */

/** @implements {Store} */
export class IndexedDbStore {
  /** @param {string} [name] @param {IDBFactory} [factory] */
  constructor(name = 'cosmicsync', factory = globalThis.indexedDB) {
    this._name = name;
    this._factory = factory;
    /** @type {IDBDatabase | undefined} */
    this._database = undefined;
  }

  async open() {
    const asked = this._factory.open(this._name, 1);
    asked.onupgradeneeded = () => {
      for (const table of TABLES) asked.result.createObjectStore(table, { autoIncrement: table === 'action' });
    };
    this._database = await settled(asked);
    this._database.onversionchange = () => this._database?.close();
  }

  /** @param {IDBTransactionMode} mode */
  _begin(mode) {
    if (!this._database) throw new Error('The store is not open');
    return this._database.transaction([...TABLES], mode, { durability: 'strict' });
  }

  /** @param {Table} table @param {string | number} key */
  async get(table, key) {
    return settled(this._begin('readonly').objectStore(table).get(key));
  }

  /** @param {Table} table */
  async all(table) {
    return settled(this._begin('readonly').objectStore(table).getAll());
  }

  /** @param {Change[]} changes */
  async write(changes) {
    const transaction = this._begin('readwrite');
    for (const { table, key, value } of changes) {
      if (value === undefined) transaction.objectStore(table).delete(key);
      else transaction.objectStore(table).put(value, key);
    }
    await completed(transaction);
  }

  /** @param {(key: number) => any} make */
  async append(make) {
    const transaction = this._begin('readwrite');
    const actions = transaction.objectStore('action');
    const place = Number(await settled(actions.add(null)));
    const value = make(place);
    actions.put(value, place);
    await completed(transaction);
    return value;
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  async sending(work) {
    const locks = globalThis.navigator?.locks;
    if (locks) return /** @type {Promise<T>} */ (locks.request(`cosmicsync:${this._name}`, work));
    return work();
  }

  async close() {
    this._database?.close();
    this._database = undefined;
  }
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function completed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error('The write was given up'));
    transaction.onerror = () => reject(transaction.error);
  });
}
