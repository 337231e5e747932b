/**
 * What this device keeps, in memory: the tables that every store has, and how they change.
 *
 * Room: `MemoryStore` is the store of an app that needs nothing kept, and the state of the one that writes a file.
 * A store has the tables `action` (by place in the queue), `local` (copies of instances) and `note`.
 */

/** @typedef {'action' | 'local' | 'note'} Table */
/** @typedef {{table: Table, key: string | number, value?: any}} Change without a value, the key is removed */
/**
 * @typedef {object} Store what `FileStore` and `IndexedDbStore` do durably: on disk when the promise resolves
 * @property {() => Promise<void>} open
 * @property {(table: Table, key: string | number) => Promise<any>} get
 * @property {(table: Table) => Promise<any[]>} all values in the order of their keys
 * @property {(changes: Change[]) => Promise<void>} write all of the changes, or none
 * @property {(make: (key: number) => any) => Promise<any>} append a value at the end of `action`; `make` is given its place
 * @property {<T>(work: () => Promise<T>) => Promise<T>} sending do something that only one user of the store may do at a time
 * @property {() => Promise<void>} close
 */

/** @implements {Store} */
export class MemoryStore {
  constructor() {
    /** @type {Record<Table, Map<string | number, any>>} */
    this.tables = { action: new Map(), local: new Map(), note: new Map() };
    this.nextPlace = 1;
  }

  async open() {}

  /** @param {Table} table @param {string | number} key */
  async get(table, key) {
    return structuredClone(this.tables[table].get(key));
  }

  /** @param {Table} table */
  async all(table) {
    return [...this.tables[table].values()].map((value) => structuredClone(value));
  }

  /** @param {Change[]} changes */
  async write(changes) {
    this.apply(changes);
  }

  /** @param {(key: number) => any} make */
  async append(make) {
    const key = this.nextPlace;
    const value = make(key);
    await this.write([{ table: 'action', key, value }]);
    return value;
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  sending(work) {
    return work();
  }

  /** Take changes into the tables. Keys of `action` only grow, so its order of insertion is that of its keys. @param {Change[]} changes */
  apply(changes) {
    for (const { table, key, value } of changes) {
      if (value === undefined) this.tables[table].delete(key);
      else this.tables[table].set(key, structuredClone(value));
      if (table === 'action') this.nextPlace = Math.max(this.nextPlace, Number(key) + 1);
    }
  }

  async close() {}
}
