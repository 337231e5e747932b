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
export class MemoryStore implements Store {
    /** @type {Record<Table, Map<string | number, any>>} */
    tables: Record<Table, Map<string | number, any>>;
    nextPlace: number;
    open(): Promise<void>;
    /** @param {Table} table @param {string | number} key */
    get(table: Table, key: string | number): Promise<any>;
    /** @param {Table} table */
    all(table: Table): Promise<any[]>;
    /** @param {Change[]} changes */
    write(changes: Change[]): Promise<void>;
    /** @param {(key: number) => any} make */
    append(make: (key: number) => any): Promise<any>;
    /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
    sending<T>(work: () => Promise<T>): Promise<T>;
    /** Take changes into the tables. Keys of `action` only grow, so its order of insertion is that of its keys. @param {Change[]} changes */
    apply(changes: Change[]): void;
    close(): Promise<void>;
}
export type Table = "action" | "local" | "note";
/**
 * without a value, the key is removed
 */
export type Change = {
    table: Table;
    key: string | number;
    value?: any;
};
/**
 * what `FileStore` and `IndexedDbStore` do durably: on disk when the promise resolves
 */
export type Store = {
    open: () => Promise<void>;
    get: (table: Table, key: string | number) => Promise<any>;
    /**
     * values in the order of their keys
     */
    all: (table: Table) => Promise<any[]>;
    /**
     * all of the changes, or none
     */
    write: (changes: Change[]) => Promise<void>;
    /**
     * a value at the end of `action`; `make` is given its place
     */
    append: (make: (key: number) => any) => Promise<any>;
    /**
     * do something that only one user of the store may do at a time
     */
    sending: <T>(work: () => Promise<T>) => Promise<T>;
    close: () => Promise<void>;
};
